/* The options of muster, a row each. Threads: any. */
#pragma once

/* name, kind, member of the API (NULL: the CLI's own), what stands for its value, help */
#define OPTION_TABLE(OPTION)                                                                       \
    OPTION(json, OPTION_FLAG, NULL, NULL, "print what the API returns")                            \
    OPTION(url, OPTION_TEXT, NULL, "URL", "the admin listener (default: MUSTER_ADMIN_URL)")        \
    OPTION(token_file, OPTION_TEXT, NULL, "FILE",                                                  \
           "file with the admin token (default: MUSTER_ADMIN_TOKEN)")                              \
    OPTION(cacert, OPTION_TEXT, NULL, "FILE",                                                      \
           "CA of the server's certificate (default: MUSTER_CACERT)")                              \
    OPTION(timeout, OPTION_NUMBER, NULL, "SECONDS", "of one request (default 120)")                \
    OPTION(limit, OPTION_NUMBER, NULL, "N", "rows of a list (default: all)")                       \
    OPTION(help, OPTION_FLAG, NULL, NULL, "this text")                                             \
    OPTION(version, OPTION_FLAG, NULL, NULL, "the program's version")                              \
    OPTION(product, OPTION_TEXT, "product", "NAME", "product line")                                \
    OPTION(template, OPTION_TEXT, "template", "NAME", "template")                                  \
    OPTION(number, OPTION_NUMBER, "version", "N",                                                  \
           "version of the template (default: the one in use)")                                    \
    OPTION(serial, OPTION_TEXT, "serial", "SERIAL", "serial of a device, in any spelling")         \
    OPTION(serials, OPTION_TEXT, NULL, "FILE", "file of serials, one a line; - is standard input") \
    OPTION(param, OPTION_PAIRS, "parameters", "NAME=VALUE",                                        \
           "value of a parameter; may be repeated")                                                \
    OPTION(state, OPTION_TEXT, "state", "STATE", "only those in this state")                       \
    OPTION(claim, OPTION_TEXT, "claim", "NAME", "only those that this claim provisioned")          \
    OPTION(status, OPTION_TEXT, "status", "STATUS",                                                \
           "pending, current, superseded or revoked; of one that is registered: active, inactive") \
    OPTION(ca, OPTION_TEXT, "ca", "NAME", "only those of this CA")                                 \
    OPTION(batch, OPTION_TEXT, "batch", "TEXT",                                                    \
           "of lines that name none; of the devices that carry a claim")                           \
    OPTION(format, OPTION_TEXT, NULL, "FORMAT", "csv or ndjson (default: by the first character)") \
    OPTION(columns, OPTION_TEXT, NULL, "MAP",                                                      \
           "where a CSV file with a heading has them: serial=NAME,pin=NAME,batch=NAME")            \
    OPTION(key_slot, OPTION_TEXT, "key", "KID",                                                    \
           "which of the element's keys is the device's (default: 0)")                             \
    OPTION(count, OPTION_NUMBER, "count", "N", "how many free tokens")                             \
    OPTION(csv, OPTION_FLAG, NULL, NULL, "print id,token,serial with a heading")                   \
    OPTION(                                                                                        \
        out, OPTION_TEXT, NULL, "FILE",                                                            \
        "new file for what is told once, yours alone to read; of a claim FILE.pem and FILE.key")   \
    OPTION(uses, OPTION_NUMBER, "uses", "N", "certificates a free token may give (default 1)")     \
    OPTION(expires, OPTION_DURATION, "expires_in_s", "DURATION",                                   \
           "how long it may be used, such as 30d (default: tokens 30d, claims 10y, temporary 5m)") \
    OPTION(grace, OPTION_DURATION, "grace_s", "DURATION",                                          \
           "how long a device may come back (default: the template's); with an expired claim: "    \
           "serials never seen (default: none)")                                                   \
    OPTION(etag, OPTION_TEXT, NULL, "ETAG",                                                        \
           "only if nobody has changed it since it was shown with this")                           \
    OPTION(note, OPTION_TEXT, "note", "TEXT", "free text")                                         \
    OPTION(kind, OPTION_TEXT, "kind", "KIND",                                                      \
           "registered (default), or helper: completes chains only")                               \
    OPTION(without_proof, OPTION_FLAG, "without_proof", NULL,                                      \
           "take the CA on your own responsibility: its holder has proved nothing")                \
    OPTION(proof, OPTION_TEXT, NULL, "FILE",                                                       \
           "verification certificate: signed by the CA, its CN the code of muster ca code (PEM)")  \
    OPTION(auto, OPTION_SWITCH, "auto_registration", "on|off",                                     \
           "whether a first contact registers the device (default: on with a template)")           \
    OPTION(jit, OPTION_TEXT, "jit", "MODE",                                                        \
           "jitp: the template runs at once (default); jitr: it waits for muster cert activate")   \
    OPTION(crl, OPTION_TEXT, "crl_mode", "MODE",                                                   \
           "what its CRL counts for: off, use (default), or require: without one that is in date " \
           "nobody gets in")                                                                       \
    OPTION(unknown, OPTION_TEXT, NULL, "FINGERPRINT",                                              \
           "the CA of muster ca unknown with this certificate, instead of a file")                 \
    OPTION(renew, OPTION_FLAG, "renew", NULL,                                                      \
           "make another code; the old one proves nothing more")                                   \
    OPTION(check, OPTION_FLAG, NULL, NULL, "change nothing, say what would happen")                \
    OPTION(event, OPTION_TEXT, NULL, "A,B",                                                        \
           "names of events, with * at the end of one (default: all)")                             \
    OPTION(receiver, OPTION_TEXT, "receiver", "NAME", "only those for it")                         \
    OPTION(id, OPTION_NUMBER, "id", "N", "of the dead event")                                      \
    OPTION(within, OPTION_DURATION, "seconds", "DURATION",                                         \
           "how long, such as 2d; at least a minute")                                              \
    OPTION(silent, OPTION_DURATION, "silent_s", "DURATION",                                        \
           "only those that musterd has not heard of for so long, such as 60d")                    \
    OPTION(for, OPTION_DURATION, "for_s", "DURATION", "how long, such as 7d")                      \
    OPTION(off, OPTION_FLAG, "off", NULL, "no longer")                                             \
    OPTION(by, OPTION_TEXT, "by", "UNIT", "day (default), week or month")                          \
    OPTION(dismiss, OPTION_TEXT, NULL, "HASH", "forget this unknown issuer")                       \
    OPTION(reason, OPTION_TEXT, "reason", "TEXT", "why")                                           \
    OPTION(revoke, OPTION_FLAG, "revoke", NULL, "also revoke its certificates")                    \
    OPTION(yes, OPTION_FLAG, NULL, NULL, "it is meant: there is no way back")                      \
    OPTION(trail, OPTION_NUMBER, "trail", "N", "attempts to show (default 20)")                    \
    OPTION(fingerprint, OPTION_TEXT, "fingerprint", "HEX", "SHA-256 of the certificate")           \
    OPTION(expires_before, OPTION_TEXT, "expires_before", "TIME",                                  \
           "only those that end before, RFC 3339")                                                 \
    OPTION(pem, OPTION_FLAG, NULL, NULL, "print the certificate only")                             \
    OPTION(body, OPTION_FLAG, NULL, NULL, "print the document only")                               \
    OPTION(serial_case, OPTION_TEXT, "serial_case", "RULE", "keep, upper or lower")                \
    OPTION(strip_separators, OPTION_FLAG, "strip_separators", NULL,                                \
           "drop . _ : - from canonical serials")                                                  \
    OPTION(object, OPTION_TEXT, "object", "NAME", "only what was done to it")                      \
    OPTION(actor, OPTION_TEXT, "actor", "NAME", "only what this token did")                        \
    OPTION(report, OPTION_TEXT, NULL, "FILE", "new file that says what became of each line")       \
    OPTION(resume, OPTION_FLAG, NULL, NULL, "go on where the report of an earlier run ends")       \
    OPTION(server, OPTION_TEXT, NULL, "HOST:PORT", "the device listener (default: MUSTER_URL)")    \
    OPTION(png, OPTION_TEXT, NULL, "FILE", "new picture, yours alone to read (default: draw it)")  \
    OPTION(export, OPTION_TEXT, NULL, "FILE", "check this export and ask no server")               \
    OPTION(approval, OPTION_TEXT, "approval", "STATE", "pending, approved or rejected")            \
    OPTION(key, OPTION_TEXT, "key", "HEX", "SHA-256 of the public key that waits")                 \
    OPTION(role, OPTION_TEXT, "role", "ROLE",                                                      \
           "viewer, operator, admin; or broker: asks who may connect, only")                       \
    OPTION(templates, OPTION_TEXT, NULL, "A,B",                                                    \
           "more templates of the product it may be used with")                                    \
    OPTION(csr, OPTION_TEXT, NULL, "FILE", "PKCS#10 request (default: a P-256 key is made)")       \
    OPTION(certificate, OPTION_TEXT, NULL, "FILE",                                                 \
           "a certificate made elsewhere, then what is between it and its CA (PEM)")               \
    OPTION(validity, OPTION_DURATION, "validity_s", "DURATION",                                    \
           "life of the certificate, apart from --expires (default 20y, at most the CA's)")        \
    OPTION(budget, OPTION_NUMBER, "budget", "N",                                                   \
           "devices it may provision (default: any number; temporary 1)")                          \
    OPTION(rate, OPTION_NUMBER, "rate_per_second", "N",                                            \
           "requests a second, of all replicas (default 10; 0: no limit)")                         \
    OPTION(burst, OPTION_NUMBER, "rate_burst", "N", "requests at once (default 50)")               \
    OPTION(max_pending, OPTION_NUMBER, "max_pending", "N",                                         \
           "certificates that may wait for their registration (default 100)")                      \
    OPTION(temporary, OPTION_FLAG, "temporary", NULL,                                              \
           "for a trusted user: minutes, one template, one device unless --budget says more")      \
    OPTION(old_expires, OPTION_DURATION, "old_enrol_for_s", "DURATION",                            \
           "end enrolment with the old one so soon (default: when it ends)")                       \
    OPTION(size, OPTION_NUMBER, "size", "N", "devices the batch may have (default: any number)")   \
    OPTION(keys, OPTION_TEXT, NULL, "FORMAT",                                                      \
           "make the keys here, p12 or pem, under the passphrase; no server sees them")            \
    OPTION(passphrase_file, OPTION_TEXT, NULL, "FILE", "file with the passphrase of the keys")     \
    OPTION(again, OPTION_FLAG, NULL, NULL,                                                         \
           "make units again that were certified with another key and never used; their "          \
           "certificates are revoked (with --resume always)")                                      \
    OPTION(parallel, OPTION_NUMBER, NULL, "N", "requests at once, 1 to 16 (default 4)")            \
    OPTION(private_key, OPTION_TEXT, NULL, "FILE", "the station's key, which seals (PEM)")         \
    OPTION(accept_gap, OPTION_FLAG, NULL, NULL,                                                    \
           "lines are lost for good: go on behind them; reconcile tells so from now on")           \
    OPTION(mode, OPTION_TEXT, "mode", "MODE",                                                      \
           "stop-new: what was begun may be finished; hard: nothing may, for good")                \
    OPTION(attestation, OPTION_TEXT, "attestation", "KIND", "symmetric-key, x509, tpm or psk")     \
    OPTION(primary_key, OPTION_TEXT, NULL, "FILE",                                                 \
           "file with a symmetric key in base64 (default: one is made)")                           \
    OPTION(secondary_key, OPTION_TEXT, NULL, "FILE", "the same for its other key")                 \
    OPTION(secondary_certificate, OPTION_TEXT, NULL, "FILE",                                       \
           "another certificate of the device that is as good (PEM)")                              \
    OPTION(endorsement_key, OPTION_TEXT, NULL, "FILE",                                             \
           "public area of the TPM's endorsement key, in base64")                                  \
    OPTION(storage_root_key, OPTION_TEXT, NULL, "FILE",                                            \
           "the same of its storage root key (default: any)")                                      \
    OPTION(allocation, OPTION_TEXT, "allocation", "POLICY",                                        \
           "how its broker is chosen: static, hashed (default) or weighted")                       \
    OPTION(endpoints, OPTION_TEXT, NULL, "A,B", "brokers to choose from (default: all)")           \
    OPTION(reprovision, OPTION_TEXT, "reprovision", "POLICY",                                      \
           "update (default): a device that registers again may be moved; sticky: it stays")       \
    OPTION(migrate, OPTION_SWITCH, "migrate", "on|off",                                            \
           "whether a moved device is told that its data moved too (default: on)")                 \
    OPTION(payload, OPTION_TEXT, NULL, "FILE", "JSON that devices are given when they register")   \
    OPTION(max_devices, OPTION_NUMBER, "max_devices", "N",                                         \
           "devices the group may have (default: any number)")                                     \
    OPTION(warn_devices, OPTION_NUMBER, "warn_devices", "N",                                       \
           "at how many it is told that so many share one secret")                                 \
    OPTION(weight, OPTION_NUMBER, "weight", "N",                                                   \
           "its share under the policy weighted; 0: nobody new (default: 1)")                      \
    OPTION(roots, OPTION_TEXT, NULL, "FILE",                                                       \
           "CAs of TPM manufacturers whose certificates a group takes (PEM)")
