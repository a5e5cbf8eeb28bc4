/* What a registration says of the certificate it was made with. */
#include <ctype.h>

#include "base/json_out.h"
#include "base/text.h"
#include "pki/cert.h"
#include "proto/dps/internal.h"

/* As .NET writes thumbprints. */
static void capitals_write(struct arena *arena, struct buf *b, const char *key, struct bytes value)
{
    char *hex = text_hex(arena, value);
    for (char *p = hex; p && *p; p++)
        *p = (char)toupper((unsigned char)*p);
    json_text(b, key, hex);
}

enum err dps_certificate_write(struct arena *arena, struct buf *b, const char *key,
                               struct bytes der)
{
    _cleanup_(cert_freep) X509 *cert = NULL;
    struct cert_info info;
    uint8_t sha1[SHA1_BYTES];
    enum err e = cert_decode(der, &cert);
    if (!e)
        e = cert_describe(arena, cert, &info);
    if (!e)
        e = cert_sha1(der, sha1);
    if (e)
        return e;
    json_key(b, key);
    json_begin_object(b);
    json_text(b, "subjectName", info.subject_text);
    capitals_write(arena, b, "sha1Thumbprint", bytes_of(sha1, SHA1_BYTES));
    capitals_write(arena, b, "sha256Thumbprint", bytes_of(info.fingerprint, SHA256_BYTES));
    json_text(b, "issuerName", info.issuer_text);
    json_text(b, "notBeforeUtc", dps_time(arena, info.not_before_s));
    json_text(b, "notAfterUtc", dps_time(arena, info.not_after_s));
    capitals_write(arena, b, "serialNumber", info.serial_number);
    json_int(b, "version", cert_version(cert));
    json_end_object(b);
    return ERR_OK;
}
