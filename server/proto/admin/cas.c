/* Registering CAs whose device certificates are admitted. */
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/text.h"
#include "pki/cert.h"
#include "proto/admin/hooks.h"

static enum err describe(struct exchange *x, const char *pem, struct cert_info *ret_info,
                         struct bytes *ret_der)
{
    X509 *certs[2] = {0};
    size_t count = 0;
    enum err e = cert_parse_pem(bytes_text(pem), certs, ARRAY_LEN(certs), &count);
    if (!e && count > 1)
        e = fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "pem has more than one certificate");
    if (!e)
        e = cert_describe(x->arena, certs[0], ret_info);
    if (!e)
        e = cert_encode(x->arena, certs[0], ret_der);
    for (size_t i = 0; i < ARRAY_LEN(certs); i++)
        cert_free(certs[i]);
    if (e == ERR_DENIED)
        return e;
    return e ? fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                         "pem is no certificate that can be read")
             : ERR_OK;
}

static enum err judge(struct exchange *x, const struct cert_info *info)
{
    if (!info->is_ca)
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                         "the certificate is no CA certificate (basicConstraints CA:TRUE)");
    if (info->not_after_s <= clock_wall_s())
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "the certificate has expired");
    return ERR_OK;
}

static int hex_add(struct exchange *x, json_t *args, const char *key, struct bytes value)
{
    const char *hex = text_hex(x->arena, value);
    return hex ? json_object_set_new(args, key, json_string(hex)) : -1;
}

enum err ca_register_before(struct service *service, struct exchange *x, json_t *args)
{
    struct cert_info info;
    struct bytes der;
    (void)service;
    enum err e = describe(x, json_string_value(json_object_get(args, "pem")), &info, &der);
    if (!e)
        e = judge(x, &info);
    if (e)
        return e;
    int rc = hex_add(x, args, "der", der) |
             hex_add(x, args, "fingerprint", bytes_of(info.fingerprint, SHA256_BYTES)) |
             hex_add(x, args, "spki", bytes_of(info.spki_sha256, SHA256_BYTES)) |
             json_object_set_new(args, "subject", json_string(info.subject_text)) |
             json_object_set_new(args, "not_after", json_integer(info.not_after_s)) |
             json_object_del(args, "pem");
    return rc ? fault_set(&x->fault, FAULT_INTERNAL, "out of memory") : ERR_OK;
}
