#include "proto/scep/scep.h"

#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "proto/scep/internal.h"

enum { GATED = 1, MAX_GET_CHARS = 24 * 1024 };

static const char *query(const struct exchange *x, const char *name)
{
    for (size_t i = 0; i < x->query_count; i++) {
        if (strcmp(x->query[i].name, name) == 0)
            return x->query[i].value;
    }
    return NULL;
}

/* Section 4.1: base64 in the query, of clients that escape it and of those that do not, whose + has
 * become a blank. */
static enum err get_message(struct exchange *x, struct bytes *ret_message)
{
    const char *text = query(x, "message");
    char *copy = text && strlen(text) <= MAX_GET_CHARS ? arena_strdup(x->arena, text) : NULL;
    for (char *c = copy; c && *c; c++) {
        if (*c == ' ')
            *c = '+';
    }
    if (!copy || base64_decode(x->arena, bytes_text(copy), ret_message))
        return fault_set(&x->fault, FAULT_SCEP_MALFORMED,
                         "the message is missing, too long, or no base64");
    return ERR_OK;
}

static enum err operation(struct service *service, struct exchange *x)
{
    struct bytes message = x->body;
    enum err e = x->method == HTTP_GET ? get_message(x, &message) : ERR_OK;
    return e ? e : scep_operation(service, x, message);
}

static enum err handle(struct service *service, struct exchange *x)
{
    static const struct {
        const char *name;
        enum err (*run)(struct service *service, struct exchange *x);
    } operations[] = {{"PKIOperation", operation},
                      {"GetCACaps", scep_caps},
                      {"GetCACert", scep_ca_cert},
                      {"GetNextCACert", scep_next_ca_cert}};
    const char *name = query(x, "operation");
    if (!service->scep)
        return fault_set(&x->fault, FAULT_SCEP_OFF, "[scep] certificate is not set");
    for (size_t i = 0; i < ARRAY_LEN(operations) && name; i++) {
        if (strcmp(operations[i].name, name) == 0)
            return operations[i].run(service, x);
    }
    return fault_set(&x->fault, FAULT_SCEP_OPERATION, "\"%.40s\"", name ? name : "");
}

/* Clients have paths of their own, and a path before which they put nothing (section 4.1). */
#define PATH(path)                                                                                 \
    {HTTP_GET, path, NULL, 0, GATED, handle, NULL},                                                \
    {                                                                                              \
        HTTP_POST, path, NULL, SCEP_MAX_MESSAGE_BYTES, GATED, handle, NULL                         \
    }

static const struct route routes[] = {
    PATH("/scep"),
    PATH("/scep/pkiclient.exe"),
    PATH("/scep/{}"),
    PATH("/scep/{}/pkiclient.exe"),
    PATH("/cgi-bin/pkiclient.exe"),
    PATH("/certsrv/mscep/mscep.dll"),
    PATH("/certsrv/mscep/mscep.dll/pkiclient.exe"),
};

const struct route_table scep_routes = {
    .rows = routes, .count = ARRAY_LEN(routes), .protocol = PROTOCOL_SCEP};
