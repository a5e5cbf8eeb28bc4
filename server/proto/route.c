#include "proto/route.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

static const char *const method_names[] = {"GET", "POST", "PUT", "DELETE"};

/* One segment of the path into the arena, decoded; NULL when it is empty or does not decode. */
static const char *segment_take(struct arena *arena, const char *start, size_t len)
{
    char *text = len > 0 ? arena_copy(arena, start, len) : NULL;
    if (!text || text_url_decode(text) || !text_is_printable_utf8(text))
        return NULL;
    return text;
}

/* Matches the path and collects what each {} stands for. */
static bool pattern_match(const char *pattern, struct exchange *x, const char **args)
{
    const char *path = x->path;
    size_t n = 0;
    while (*pattern) {
        if (pattern[0] != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        if (strcmp(pattern, "{*}") == 0) {
            args[n] = segment_take(x->arena, path, strlen(path));
            return args[n] != NULL;
        }
        size_t len = strcspn(path, "/");
        /* "/{}:verb": a literal behind the braces ends the segment early */
        const char *stop =
            pattern[2] != '\0' && pattern[2] != '/' ? strchr(path, pattern[2]) : NULL;
        if (stop && (size_t)(stop - path) < len)
            len = (size_t)(stop - path);
        const char *arg = n < EXCHANGE_MAX_ARGS ? segment_take(x->arena, path, len) : NULL;
        if (!arg)
            return false;
        args[n++] = arg;
        path += len;
        pattern += 2;
    }
    return *path == '\0';
}

static void allow_add(struct exchange *x, unsigned methods)
{
    char text[64] = "";
    for (size_t m = 0; m < sizeof(method_names) / sizeof(method_names[0]); m++) {
        if (!(methods & 1u << m))
            continue;
        size_t len = strlen(text);
        snprintf(text + len, sizeof(text) - len, "%s%s", len > 0 ? ", " : "", method_names[m]);
    }
    char *copy = arena_strdup(x->arena, text);
    if (copy)
        exchange_add_header(x, "Allow", copy);
}

enum err route_find(const struct route_table *table, struct exchange *x,
                    const struct route **ret_row)
{
    unsigned methods = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct route *row = &table->rows[i];
        const char *args[EXCHANGE_MAX_ARGS] = {0};
        if (!pattern_match(row->pattern, x, args))
            continue;
        methods |= 1u << row->method;
        if (row->method != x->method)
            continue;
        memcpy(x->args, args, sizeof(args));
        x->problem = table->problem;
        x->route = row;
        *ret_row = row;
        return ERR_OK;
    }
    if (methods == 0)
        return fault_set(&x->fault, FAULT_REQUEST_NOT_FOUND, "%.200s", x->path);
    x->problem = table->problem;
    allow_add(x, methods);
    return fault_set(&x->fault, FAULT_REQUEST_METHOD, "%.200s", x->path);
}

enum err route_check(const struct route *row, struct exchange *x, int64_t declared_length)
{
    if (declared_length > 0 && (uint64_t)declared_length > row->max_body)
        return fault_set(&x->fault, FAULT_REQUEST_TOO_LARGE, "at most %zu bytes", row->max_body);
    if (row->type && !exchange_type_is(x, row->type))
        return fault_set(&x->fault, FAULT_REQUEST_TYPE, "Content-Type must be %s", row->type);
    return ERR_OK;
}

enum err route_admit(const struct route_table *table, const struct route *row,
                     struct service *service, struct exchange *x)
{
    x->route = row;
    enum err e = table->before ? table->before(service, row, x) : ERR_OK;
    if (e && x->fault.code == FAULT_NONE)
        return fault_set(&x->fault, FAULT_INTERNAL, "admission: %s", err_name(e));
    return e;
}

void route_run(const struct route *row, struct service *service, struct exchange *x)
{
    enum err e = row->handle(service, x);
    if (!e && x->status != 0)
        return;
    if (e != ERR_DENIED || x->fault.code == FAULT_NONE)
        (void)fault_set(&x->fault, FAULT_INTERNAL, "handler: %s", err_name(e));
    if (x->told == FAULT_NONE)
        exchange_problem(x, x->fault.code);
}
