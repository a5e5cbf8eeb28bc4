/* Registering CAs whose device certificates are admitted, and taking them to another region. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/secret.h"
#include "enroll/catalog.h"
#include "enroll/service.h"
#include "pki/cert.h"
#include "proto/admin/hooks.h"

enum { MAX_MEMBER_CHARS = 64 };

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

/* The CN of a certificate that the CA signed and that is valid now: what its holder was asked to
 * sign. */
static enum err proof_check(struct exchange *x, const char *ca_pem, const char *proof_pem,
                            const char **ret_cn)
{
    X509 *certs[2] = {0}, *ca[2] = {0};
    size_t count = 0, ca_count = 0;
    struct cert_info info = {0};
    enum err e = cert_parse_pem(bytes_text(proof_pem), certs, ARRAY_LEN(certs), &count);
    if (!e)
        e = cert_parse_pem(bytes_text(ca_pem), ca, ARRAY_LEN(ca), &ca_count);
    if (!e)
        e = cert_describe(x->arena, certs[0], &info);
    int64_t now_s = clock_wall_s();
    bool good = !e && cert_signed_by(certs[0], ca[0]) && info.not_before_s <= now_s &&
                info.not_after_s > now_s && info.cn;
    for (size_t i = 0; i < ARRAY_LEN(certs); i++) {
        cert_free(certs[i]);
        cert_free(ca[i]);
    }
    *ret_cn = info.cn;
    return good ? ERR_OK
                : fault_set(
                      &x->fault, FAULT_CA_PROOF_INVALID,
                      "it cannot be read, is not valid now, or the CA's key has not signed it");
}

/* What the desk wants to know of the certificate. */
static enum err certificate_args(struct exchange *x, const char *pem, json_t *args)
{
    struct cert_info info;
    struct bytes der;
    enum err e = describe(x, pem, &info, &der);
    if (!e)
        e = judge(x, &info);
    if (e)
        return e;
    int rc =
        admin_hex_add(x->arena, args, "der", der) |
        admin_hex_add(x->arena, args, "fingerprint", bytes_of(info.fingerprint, SHA256_BYTES)) |
        admin_hex_add(x->arena, args, "spki", bytes_of(info.spki_sha256, SHA256_BYTES)) |
        json_object_set_new(args, "subject", json_string(info.subject_text)) |
        json_object_set_new(args, "not_after", json_integer(info.not_after_s));
    if (!rc && info.cn)
        rc = json_object_set_new(args, "cn", json_string(info.cn));
    return rc ? fault_set(&x->fault, FAULT_INTERNAL, "out of memory") : ERR_OK;
}

/* The certificate that is meant: given, or as a device sent it. */
static enum err pem_take(struct service *service, struct exchange *x, json_t *args,
                         const char **ret_pem)
{
    const char *pem = json_string_value(json_object_get(args, "pem"));
    struct desk_answer answer = {0};
    if (!pem == !json_object_get(args, "unknown"))
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "give either pem or unknown");
    if (pem) {
        *ret_pem = arena_strdup(x->arena, pem);
        return *ret_pem ? ERR_OK : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    }
    enum err e = admin_ask(service, x, DESK_UNKNOWN_CA, args, &answer);
    if (e)
        return e;
    _cleanup_(json_decrefp) json_t *found = json_loads(answer.json, 0, NULL);
    pem = json_string_value(json_object_get(found, "pem"));
    *ret_pem = pem ? arena_strdup(x->arena, pem) : NULL;
    return *ret_pem ? ERR_OK : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
}

enum err ca_register_before(struct service *service, struct exchange *x, json_t *args)
{
    const char *pem = NULL, *cn = NULL;
    enum err e = pem_take(service, x, args, &pem);
    if (!e)
        e = certificate_args(x, pem, args);
    const char *proof = json_string_value(json_object_get(args, "proof"));
    if (!e && proof) {
        e = proof_check(x, pem, proof, &cn);
        if (!e && json_object_set_new(args, "proof_cn", json_string(cn)))
            e = fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    }
    json_object_del(args, "pem");
    json_object_del(args, "proof");
    return e;
}

enum err ca_code_before(struct service *service, struct exchange *x, json_t *args)
{
    uint8_t random[SHA256_BYTES];
    (void)service;
    if (secret_random(random, sizeof(random)) ||
        admin_hex_add(x->arena, args, "fresh", bytes_of(random, sizeof(random))))
        return fault_set(&x->fault, FAULT_INTERNAL, "random numbers");
    return ERR_OK;
}

/* Bundles. */

/* Takes over a member that is as it should be; false: it is not. */
static bool member_take(const json_t *entry, const char *name, bool text, json_t *args)
{
    json_t *value = json_object_get(entry, name);
    if (!value || json_is_null(value))
        return true;
    bool good = text ? json_is_string(value) && json_string_length(value) <= MAX_MEMBER_CHARS
                     : json_is_boolean(value);
    return good && json_object_set(args, name, value) == 0;
}

/* An entry as the desk wants it; nothing else of it goes on. */
static enum err entry_args(struct exchange *x, const json_t *entry, bool check, json_t *args)
{
    const char *kind = json_string_value(json_object_get(entry, "kind"));
    const char *jit = json_string_value(json_object_get(entry, "jit"));
    const char *pem = json_string_value(json_object_get(entry, "pem"));
    bool good = pem && json_object_get(entry, "name") && member_take(entry, "name", true, args) &&
                member_take(entry, "kind", true, args) &&
                member_take(entry, "template", true, args) &&
                member_take(entry, "jit", true, args) &&
                member_take(entry, "auto_registration", false, args) &&
                member_take(entry, "active", false, args) &&
                json_object_set_new(args, "check", json_boolean(check)) == 0;
    if (!good || (kind && strcmp(kind, "registered") != 0 && strcmp(kind, "helper") != 0) ||
        (jit && strcmp(jit, "jitp") != 0 && strcmp(jit, "jitr") != 0))
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                         "an entry's name, pem, kind, template, jit, auto_registration or active "
                         "is not as it should be");
    return certificate_args(x, pem, args);
}

/* One entry: what became of it, as an object of the answer. */
static enum err entry_import(struct service *service, struct exchange *x, const json_t *entry,
                             bool check, json_t *results)
{
    _cleanup_(json_decrefp) json_t *args = json_object();
    struct desk_answer answer = {0};
    enum err e = entry_args(x, entry, check, args);
    if (!e)
        e = admin_ask(service, x, DESK_CA_IMPORT, args, &answer);
    if (e && fault_row(x->fault.code)->http_status >= 500)
        return e;
    json_t *result =
        e ? json_pack("{s:s?, s:s, s:o}", "name", json_string_value(json_object_get(args, "name")),
                      "result", "refused", "reason",
                      json_sprintf("%s: %s", fault_row(x->fault.code)->code, x->fault.detail))
          : json_loads(answer.json, 0, NULL);
    x->fault = (struct fault){0};
    return json_array_append_new(results, result)
               ? fault_set(&x->fault, FAULT_INTERNAL, "out of memory")
               : ERR_OK;
}

enum err ca_import_handle(struct service *service, struct exchange *x)
{
    _cleanup_(json_decrefp) json_t *args = NULL;
    _cleanup_(json_decrefp) json_t *results = json_array();
    const struct admin_session *session = x->adapter;
    enum err e = admin_args(x->route->more, x, &args);
    if (!e && session->op.product_id != 0)
        e = fault_set(&x->fault, FAULT_ADMIN_FORBIDDEN, "the token is for one product only");
    bool check = json_is_true(json_object_get(args, "check"));
    json_t *cas = json_object_get(args, "cas");
    if (!e && json_integer_value(json_object_get(args, "format")) != 1)
        e = fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "the bundle's format is not 1");
    for (size_t i = 0; i < json_array_size(cas) && !e; i++)
        e = entry_import(service, x, json_array_get(cas, i), check, results);
    catalog_expire(service->catalog);
    if (e)
        return e;
    char *text = json_dumps(results, JSON_COMPACT);
    e = text ? admin_reply(x, 200, text) : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    free(text);
    return e;
}
