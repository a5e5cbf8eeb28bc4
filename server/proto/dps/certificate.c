/* What a registration says of the certificate it was made with. */
#include <ctype.h>

#include "base/json_out.h"
#include "base/text.h"
#include "proto/dps/internal.h"

/* As .NET writes thumbprints. NULL: out of memory. */
static const char *capitals(struct arena *arena, struct bytes value)
{
    char *hex = text_hex(arena, value);
    for (char *p = hex; p && *p; p++)
        *p = (char)toupper((unsigned char)*p);
    return hex;
}

static enum err info_write(struct arena *arena, struct buf *b, const char *key, struct bytes der,
                           const struct cert_info *info)
{
    uint8_t sha1[SHA1_BYTES];
    int version = 0;
    enum err e = cert_sha1(der, sha1);
    if (!e)
        e = cert_version(der, &version);
    if (e)
        return e;
    const struct {
        const char *name, *text;
    } members[] = {
        {"subjectName", info->subject_text},
        {"sha1Thumbprint", capitals(arena, bytes_of(sha1, sizeof(sha1)))},
        {"sha256Thumbprint", capitals(arena, bytes_of(info->fingerprint, SHA256_BYTES))},
        {"issuerName", info->issuer_text},
        {"notBeforeUtc", dps_time(arena, info->not_before_s)},
        {"notAfterUtc", dps_time(arena, info->not_after_s)},
        {"serialNumber", capitals(arena, info->serial_number)},
    };
    json_key(b, key);
    json_begin_object(b);
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        if (!members[i].text)
            return ERR_NO_MEMORY;
        json_text(b, members[i].name, members[i].text);
    }
    json_int(b, "version", version);
    json_end_object(b);
    return ERR_OK;
}

enum err dps_certificate_write(struct arena *arena, struct buf *b, const char *key,
                               struct bytes der, const struct cert_info *info)
{
    _cleanup_(cert_freep) X509 *cert = NULL;
    struct cert_info read;
    if (info)
        return info_write(arena, b, key, der, info);
    enum err e = cert_decode(der, &cert);
    if (!e)
        e = cert_describe(arena, cert, &read);
    return e ? e : info_write(arena, b, key, der, &read);
}
