/* A registered CA's CRL, as an operator uploads it. */
#include "base/cleanup.h"
#include "enroll/catalog.h"
#include "enroll/foreign_crls.h"
#include "enroll/service.h"
#include "pki/cert.h"
#include "pki/crl_read.h"
#include "proto/admin/hooks.h"

enum { ARENA_BYTES = 256 << 20 };

static enum err crl_take(struct exchange *x, struct arena *arena, struct crl_info *ret_crl)
{
    const char *why = NULL;
    enum err e = crl_read(x->body, arena, ret_crl, &why);
    return e ? fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%s", why) : ERR_OK;
}

/* The certificate of the CA that is named. */
static enum err ca_take(struct service *service, struct exchange *x, const json_t *args,
                        X509 **ret_ca)
{
    struct desk_answer answer = {0};
    enum err e = admin_ask(service, x, DESK_CA_SHOW, args, &answer);
    if (e)
        return e;
    _cleanup_(json_decrefp) json_t *found = json_loads(answer.json, 0, NULL);
    const char *pem = json_string_value(json_object_get(found, "pem"));
    e = pem ? cert_parse_first_pem(bytes_text(pem), ret_ca) : ERR_INVALID;
    return e ? fault_set(&x->fault, FAULT_INTERNAL, "the CA's certificate cannot be read") : ERR_OK;
}

static enum err args_fill(struct exchange *x, const struct crl_info *crl, struct arena *arena,
                          json_t *args)
{
    int rc = admin_hex_add(arena, args, "der", crl->der) |
             admin_hex_add(arena, args, "number", crl->number) |
             json_object_set_new(args, "this_update", json_integer(crl->this_update_s)) |
             json_object_set_new(args, "next_update", json_integer(crl->next_update_s)) |
             json_object_set_new(args, "entries", json_integer((json_int_t)crl->count));
    return rc ? fault_set(&x->fault, FAULT_INTERNAL, "out of memory") : ERR_OK;
}

enum err ca_crl_before(struct service *service, struct exchange *x, json_t *args)
{
    _cleanup_(arena_donep) struct arena arena;
    _cleanup_(cert_freep) X509 *ca = NULL;
    struct crl_info crl;
    arena_init(&arena, ARENA_BYTES);
    enum err e = crl_take(x, &arena, &crl);
    if (!e)
        e = ca_take(service, x, args, &ca);
    if (!e && !crl_is_of(crl.der, ca))
        e = fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                      "the CRL is not of this CA: its name or its key is another, the signature is "
                      "weak, or the CA may not sign CRLs");
    return e ? e : args_fill(x, &crl, &arena, args);
}

/* Every door judges what comes by the CRL as soon as replicas see it; those that the registry has
 * are revoked now, for the broker knows nothing else. */
enum err ca_crl_after(struct service *service, struct exchange *x, const json_t *args,
                      json_t *answer)
{
    _cleanup_(arena_donep) struct arena arena;
    _cleanup_(cert_freep) X509 *ca = NULL;
    struct crl_info crl;
    struct bytes ca_der;
    size_t revoked = 0;
    arena_init(&arena, ARENA_BYTES);
    catalog_expire(service->catalog);
    const char *mode = json_string_value(json_object_get(answer, "crl_mode"));
    if (mode && strcmp(mode, "off") == 0)
        return ERR_OK;
    enum err e = crl_take(x, &arena, &crl);
    if (!e)
        e = ca_take(service, x, args, &ca);
    if (e)
        return e;
    e = cert_encode(&arena, ca, &ca_der);
    if (!e)
        e = foreign_crls_apply(service, ca_der, &crl, &arena, &revoked);
    if (!e && json_object_set_new(answer, "revoked", json_integer((json_int_t)revoked)))
        e = ERR_NO_MEMORY;
    return e ? fault_set(&x->fault, FAULT_DB_UNAVAILABLE,
                         "the CRL is taken; revoking devices goes on within a minute")
             : ERR_OK;
}
