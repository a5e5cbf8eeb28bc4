/* Why an attempt ended as it did, and small answers about the server. */
#include <string.h>

#include "model/fault.h"
#include "proto/admin/hooks.h"

/* The registry of faults explains the outcome. */
enum err attempts_after(struct service *service, struct exchange *x, const json_t *args,
                        json_t *answer)
{
    (void)service;
    (void)args;
    for (size_t i = 0; i < json_array_size(answer); i++) {
        json_t *row = json_array_get(answer, i);
        const char *outcome = json_string_value(json_object_get(row, "outcome"));
        bool good = outcome && (strcmp(outcome, "ok") == 0 || strcmp(outcome, "replayed") == 0);
        const struct fault_row *fault = outcome && !good ? fault_row(fault_parse(outcome)) : NULL;
        int rc =
            json_object_set_new(row, "title", fault ? json_string(fault->title) : json_null()) |
            json_object_set_new(row, "remedy", fault ? json_string(fault->remedy) : json_null());
        if (rc)
            return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    }
    return ERR_OK;
}

enum err status_before(struct service *service, struct exchange *x, json_t *args)
{
    (void)service;
    return json_object_set_new(args, "version", json_string(MUSTER_VERSION)) == 0
               ? ERR_OK
               : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
}

enum err whoami_handle(struct service *service, struct exchange *x)
{
    const struct admin_session *s = x->adapter;
    (void)service;
    const char *product = s->op.product ? arena_printf(x->arena, "\"%s\"", s->op.product) : "null";
    const char *json =
        product ? arena_printf(x->arena, "{\"name\":\"%s\",\"role\":\"%s\",\"product\":%s}",
                               s->op.name, s->op.role, product)
                : NULL;
    return json ? admin_reply(x, 200, json) : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
}
