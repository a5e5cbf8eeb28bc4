/* Activating and registering certificates of registered CAs. */
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "enroll/catalog.h"
#include "enroll/service.h"
#include "proto/admin/certs.h"
#include "proto/admin/hooks.h"

static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

/* The certificate as it is now. */
static enum err reply_certificate(struct service *service, struct exchange *x, int status,
                                  const char *fingerprint)
{
    _cleanup_(json_decrefp) json_t *args = json_pack("{s:s}", "fingerprint", fingerprint);
    struct desk_answer answer = {0};
    enum err e = args ? admin_ask(service, x, DESK_CERT_SHOW, args, &answer)
                      : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    return e ? e : admin_reply(x, status, answer.json);
}

static enum err provision(struct service *service, struct exchange *x, const struct cert_wish *w,
                          int status, const char *fingerprint)
{
    struct enrollment_result result;
    enum err e = cert_wish_provision(service, x, w, &result, &x->fault);
    return e ? e : reply_certificate(service, x, status, fingerprint);
}

static enum err der_take(struct exchange *x, const char *hex, struct bytes *ret_der)
{
    size_t len = hex ? strlen(hex) / 2 : 0;
    uint8_t *der = arena_alloc(x->arena, len + 1);
    if (!der || text_parse_hex(hex ? hex : "", der, len))
        return fault_set(&x->fault, FAULT_INTERNAL, "the registry's certificate cannot be read");
    *ret_der = bytes_of(der, len);
    return ERR_OK;
}

/* One that waits, for its device has come or was announced. What is given now goes before what
 * was given then. */
static enum err waiting_activate(struct service *service, struct exchange *x, const json_t *args,
                                 const json_t *known)
{
    struct cert_wish w = {.chain_count = 1, .vouch = VOUCH_NOW, .operation = "activate"};
    w.template = text_of(known, "template");
    enum err e = der_take(x, text_of(known, "certificate"), &w.chain[0]);
    if (!e)
        e = cert_wish_parameters(&w, json_object_get(args, "parameters"), &x->fault);
    return e ? e : provision(service, x, &w, 200, text_of(args, "fingerprint"));
}

enum err cert_activate_handle(struct service *service, struct exchange *x)
{
    _cleanup_(json_decrefp) json_t *args = NULL, *known = NULL;
    struct desk_answer answer = {0};
    enum err e = admin_args(x->route->more, x, &args);
    if (!e)
        e = admin_ask(service, x, DESK_CERT_ACTIVATE, args, &answer);
    if (e)
        return e;
    known = json_loads(answer.json, 0, NULL);
    if (json_is_true(json_object_get(known, "register")))
        return waiting_activate(service, x, args, known);
    return admin_reply(x, 200, answer.json);
}

enum err cert_register_handle(struct service *service, struct exchange *x)
{
    _cleanup_(json_decrefp) json_t *args = NULL;
    struct cert_wish w = {.vouch = VOUCH_AHEAD, .operation = "register"};
    enum err e = admin_args(x->route->more, x, &args);
    catalog_expire(service->catalog);
    if (!e)
        e = cert_wish_parameters(&w, json_object_get(args, "parameters"), &x->fault);
    if (!e)
        e = cert_wish_pem(service, x->arena, text_of(args, "pem"), &w, &x->fault);
    if (e)
        return e;
    const char *status = text_of(args, "status"), *json;
    w.template = text_of(args, "template");
    if (!w.template || (status && strcmp(status, "inactive") == 0)) {
        e = cert_wish_record(service, x, &w, status ? status : "active", &json, &x->fault);
        return e ? e : admin_reply(x, 201, json);
    }
    const char *hex = text_hex(x->arena, bytes_of(w.leaf.fingerprint, SHA256_BYTES));
    e = hex ? cert_wish_begin(service, x, &w, &x->fault)
            : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    return e ? e : provision(service, x, &w, 201, hex);
}
