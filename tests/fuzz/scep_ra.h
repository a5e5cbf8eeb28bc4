/*
 * A registration authority for tests: its key opens nothing but messages of tests. Threads: any.
 */
#pragma once

static const char scep_ra_key_pem[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQCbybholEhA68jN\n"
    "2jR1Chq4dNycxEosj3+I0tfPn0QYi81VURJXFn6OLHhAHt9CNJx/sRbPuzLjeSRp\n"
    "KPeqxTAgV47t4LcTZNeIyAuw9j5dgzSzQpZvhDW04VfBJtJqp8bg0rfd1/V05+K5\n"
    "2d2ms2BOIttMHiysQR0ENftIkmR+eLnto2PUrgUR2sWxD7rChrpO4wlsp3AE8/29\n"
    "7jJoTkzeVXAL2hrbJ6lqAoozur2Ye5NM+sBuBlCnFthH3kcDvaMpe9+tqQ7pFD/A\n"
    "fWLWUzoE1/LoQGfftywPof18fkDd2gDmjf4TSxWZrI+sMflgD8++Z/grXAaXfxGA\n"
    "uFlNGlsLAgMBAAECggEAAQcxRNtpqKgFsLoWa4lQCNSYmh4/gRDHXi9KBlA+Qk01\n"
    "4zDARrvaxPRtLLsnbQfs2njgNim9mbu0bk87ZzCa8zOwuUgo3SNmurvbO+U8HyDd\n"
    "CavQU1cThaiRDDDF5bdKvDQXy4p/z7AyEljqOg3n/kwDl3qBf/eECgGTMXTp3d3K\n"
    "dRPC4LXIMQwdx3opYhuN3b+L5ON+9+hOarLVfB/bTeywxrEOjpcYYM1IKfiu7BVt\n"
    "Kp8K7VO92Hdb1jSxuzg6y/ieGBH3Qv/vkHo6+nHyFAeXrYnURFu6V/t6MNVLUc0l\n"
    "8bQeY6hII76ePlorqHNQShsOPgzIrV3b62dO7i3EvQKBgQDPR3RfD1n9lKfZ7H1T\n"
    "pCwK3pZFaunf8HfvHKNU2J3N2ku04Wo5UpQShWW8Gm3HO6ZYBfqeUt24LVYe/qw9\n"
    "CK0054DszGLY8AFIFoQ+klgW8i1QSFeKNf2weed1t/EKo0FnhUwpsB8cr6c7HbkQ\n"
    "ojETZdG88I57JOKQggF0T3AEpQKBgQDAZ+dsquTPEBsNJ8BbtoLzVDxnaWOtb8WO\n"
    "xm8owhhrBTmOi+eYWIq6w6q8MRE+HxF1QYyuwt1SNieJTZ3NqDhf7t4z4PFfIYC6\n"
    "c+9mwFOdBT9gjKsgcAQ9T2XI/WI1SNIqMGM3qhlyiRdj9rLo901HybuciTcQ1XA8\n"
    "xSoead3h7wKBgQCdAOnDq1QlwLkXV4tilIMLxKgccqwuBO5DfvS0qtN0/nnDy85z\n"
    "FvqzwLlbrsUiWStZl0XLMMdi32xRU+RQ4saXwRclxnbFDZ5a5TtMTftNfikWm4U7\n"
    "WkQLrXrF7ws0XI6JBC25kf8u8loAbDYmxEPaBpDExY2W90xp2x+Q4y7dRQKBgQDA\n"
    "NMwGTW3HwCIV8TkDJX8Jj4PMFocB0l97spWHFOaJuq11ziMsmH719dOQrj+4XBb3\n"
    "mOTuDDJGF11Fl2jl8n9mrlwBXVwimXhcSsbEUar1eDGIxN2KyPwjNzbKIv3Blx6E\n"
    "ENR83gsP1Q2tyduOSMZFyawGwzhkM6QswRXDTiTetwKBgDfVA1JkT65EI9gkQvti\n"
    "zT2SPBvZkK8x0K/DPGMEhMi9JR+cRqK7PkqXJGXrPDFJcPNSMcxo03IVtYfXZ5K7\n"
    "z7rAJGMd076uElPv89Zjh0hawDLCG70V/SXGGGxLrP33itkdODWbkmn/XWQb3MdX\n"
    "5qPNuLyaVTKl26TvMIIiusAM\n"
    "-----END PRIVATE KEY-----\n";

static const char scep_ra_cert_pem[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIICsDCCAZigAwIBAgIUfLnQGrr+X8DsLZnDDn9CAmjJy7UwDQYJKoZIhvcNAQEL\n"
    "BQAwEjEQMA4GA1UEAwwHVGVzdCBSQTAeFw0yNjExMjUwOTA1NDhaFw0yNjEyMDMw\n"
    "OTA1NDhaMBIxEDAOBgNVBAMMB1Rlc3QgUkEwggEiMA0GCSqGSIb3DQEBAQUAA4IB\n"
    "DwAwggEKAoIBAQCbybholEhA68jN2jR1Chq4dNycxEosj3+I0tfPn0QYi81VURJX\n"
    "Fn6OLHhAHt9CNJx/sRbPuzLjeSRpKPeqxTAgV47t4LcTZNeIyAuw9j5dgzSzQpZv\n"
    "hDW04VfBJtJqp8bg0rfd1/V05+K52d2ms2BOIttMHiysQR0ENftIkmR+eLnto2PU\n"
    "rgUR2sWxD7rChrpO4wlsp3AE8/297jJoTkzeVXAL2hrbJ6lqAoozur2Ye5NM+sBu\n"
    "BlCnFthH3kcDvaMpe9+tqQ7pFD/AfWLWUzoE1/LoQGfftywPof18fkDd2gDmjf4T\n"
    "SxWZrI+sMflgD8++Z/grXAaXfxGAuFlNGlsLAgMBAAEwDQYJKoZIhvcNAQELBQAD\n"
    "ggEBAAbS+Fk2VIp9/Otpc5cx7WLhPqzKh+6DS25gtEJTCzbpc17mijgj9quSM7s/\n"
    "wYe2J1Q+YNxONg14qr6RYBsPkgEalknUom0DthkGV6pgpBDvdh6Hhfl7mXbyyN1V\n"
    "ZqSzVUL/nRTEU6SLmEPOyNG70K+r1YNj22JbfhUYbOhIDEk2DfR81jZgXlirb9Lr\n"
    "qEwMju9xk35UzkVcVgQFQDxQJNLwNUEFw5eb0qktrOVuq7Jf/CBga9IrQVsEltvL\n"
    "9H9OHpb037gB9wnh6Kplm+pz/ywFdpYID+yjYviV/bagMcbBm1p/RbPFxSOuplTG\n"
    "LQrlYFwZk7I45AdL8PzsI2e3SBk=\n"
    "-----END CERTIFICATE-----\n";
