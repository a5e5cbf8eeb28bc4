/* Templates: compiled before they are stored; rendered for a look. */
#include <string.h>

#include "base/cleanup.h"
#include "enroll/catalog.h"
#include "enroll/service.h"
#include "enroll/template.h"
#include "proto/admin/hooks.h"

static const char demo_fingerprint[] =
    "0000000000000000000000000000000000000000000000000000000000000000";

static enum err compile(struct exchange *x, const char *text, size_t len,
                        struct template **ret_template)
{
    struct template_error error = {0};
    enum err e = template_compile(text, len, ret_template, &error);
    if (e == ERR_INVALID)
        return fault_set(&x->fault, FAULT_TEMPLATE_INVALID, "%s: %s", error.path, error.message);
    return e ? fault_set(&x->fault, FAULT_INTERNAL, "compiling: %s", err_name(e)) : ERR_OK;
}

/* The body is the document itself. */
enum err template_put_before(struct service *service, struct exchange *x, json_t *args)
{
    _cleanup_(template_freep) struct template *t = NULL;
    (void)service;
    const char *name = json_string_value(json_object_get(args, "name"));
    if (!template_name_valid(name))
        return fault_set(
            &x->fault, FAULT_REQUEST_MALFORMED,
            "a template's name is 1 to %d characters of A-Z a-z 0-9 _ - and no EST operation",
            TEMPLATE_NAME_MAX_CHARS);
    enum err e = compile(x, (const char *)x->body.data, x->body.len, &t);
    if (e)
        return e;
    json_t *body = json_stringn((const char *)x->body.data, x->body.len);
    if (!body)
        return fault_set(&x->fault, FAULT_TEMPLATE_INVALID, "$: the document is not UTF-8");
    return json_object_set_new(args, "body", body) == 0
               ? ERR_OK
               : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
}

enum err template_validate_handle(struct service *service, struct exchange *x)
{
    _cleanup_(template_freep) struct template *t = NULL;
    (void)service;
    enum err e = compile(x, (const char *)x->body.data, x->body.len, &t);
    return e ? e : admin_reply(x, 200, "{\"valid\":true}");
}

/* What an enrolment would bring along: the serial and a fingerprint; the rest is given. */
static enum err params_fill(struct exchange *x, const json_t *args,
                            const struct catalog_template *t, struct template_params *params)
{
    const char *serial = json_string_value(json_object_get(args, "serial"));
    const char *key;
    json_t *value;
    enum err e = template_params_add(params, "SerialNumber", serial);
    if (!e)
        e = template_params_add(params, "Muster::Serial", serial);
    if (!e)
        e = template_params_add(params, "Muster::Product", t->product->name);
    if (!e)
        e = template_params_add(params, "AWS::IoT::Certificate::Id", demo_fingerprint);
    if (!e)
        e = template_params_add(params, "AWS::IoT::Certificate::CommonName", serial);
    json_object_foreach(json_object_get(args, "parameters"), key, value)
    {
        if (!e && !json_is_string(value))
            return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "parameter %.64s must be a string",
                             key);
        if (!e)
            e = template_params_add(params, key, json_string_value(value));
    }
    return e ? fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "more than %d parameters",
                         TEMPLATE_MAX_PARAMS)
             : ERR_OK;
}

static enum err render(struct exchange *x, const json_t *args, const struct catalog_template *t)
{
    struct template_params params = {.count = 0};
    struct cert_profile profile;
    struct registration registration;
    enum err e = params_fill(x, args, t, &params);
    if (!e)
        e = template_profile(t->compiled, &params, x->arena, &profile, &x->fault);
    if (!e)
        e = template_registration(t->compiled, &params, x->arena, &registration, &x->fault);
    if (e)
        return e;
    const char *text = template_render(&profile, &registration, x->arena);
    if (!text)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    exchange_reply(x, 200, "application/json", bytes_text(text));
    return ERR_OK;
}

enum err template_render_handle(struct service *service, struct exchange *x)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    _cleanup_(json_decrefp) json_t *args = NULL;
    const struct admin_session *s = x->adapter;
    enum err e = admin_args(x->route->more, x, &args);
    if (e)
        return e;
    catalog_expire(service->catalog);
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    const char *name = json_string_value(json_object_get(args, "name"));
    const struct catalog_template *t = snapshot_template(snapshot, name);
    if (!t || (s->op.product_id != 0 && t->product->id != s->op.product_id))
        return fault_set(&x->fault, FAULT_OBJECT_NOT_FOUND, "there is no enabled template %s",
                         name);
    return render(x, args, t);
}
