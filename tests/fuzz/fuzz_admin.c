/*
 * The arguments of the admin API. The first byte chooses the call; up to the first line end comes
 * the query, the rest is the JSON body. What is accepted has every required argument and no other.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "proto/admin/admin.h"
#include "proto/admin/call.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { ARENA_BYTES = 8 << 20, MAX_CALLS = 128 };

static size_t calls_find(const struct route **ret_rows)
{
    size_t n = 0;
    for (size_t i = 0; i < admin_routes.count && n < MAX_CALLS; i++) {
        if (admin_routes.rows[i].more)
            ret_rows[n++] = &admin_routes.rows[i];
    }
    return n;
}

/* name=value&name=value, taken apart as the listener does. */
static void query_fill(struct exchange *x, char *text)
{
    char *rest = NULL;
    for (char *p = strtok_r(text, "&", &rest); p && x->query_count < EXCHANGE_MAX_PAIRS;
         p = strtok_r(NULL, "&", &rest)) {
        char *value = strchr(p, '=');
        if (value)
            *value++ = '\0';
        if (text_url_decode(p) || (value && text_url_decode(value)))
            continue;
        x->query[x->query_count++] = (struct pair){p, value ? value : ""};
    }
}

static void accepted_check(const struct admin_call *call, const json_t *args)
{
    for (size_t i = 0; i < ADMIN_MAX_ARGS && call->args[i].name; i++) {
        const json_t *value = json_object_get(args, call->args[i].name);
        if (call->args[i].required && !value)
            abort();
        if (value && call->args[i].kind == ARG_INT &&
            (json_integer_value(value) < call->args[i].min ||
             json_integer_value(value) > call->args[i].max))
            abort();
    }
}

static void call_run(struct arena *a, const struct admin_call *call, char *query, struct bytes body)
{
    static const char sha256[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    struct exchange x = {.arena = a, .body = body};
    json_t *args = NULL;
    for (size_t i = 0, at = 0; i < ADMIN_MAX_ARGS && call->args[i].name; i++) {
        if (call->args[i].from == ARG_PATH)
            x.args[at++] = call->args[i].kind == ARG_SHA256 ? sha256 : "7";
    }
    query_fill(&x, query);
    enum err e = admin_args(call, &x, &args);
    if (e == ERR_OK)
        accepted_check(call, args);
    else if (args || (e == ERR_DENIED && x.fault.code == FAULT_NONE))
        abort();
    json_decref(args);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct route *rows[MAX_CALLS];
    struct arena a;
    arena_init(&a, ARENA_BYTES);
    char *text = len > 0 && len <= ADMIN_MAX_BODY_BYTES ? arena_copy(&a, data, len) : NULL;
    if (text) {
        const struct route *row = rows[(uint8_t)text[0] % calls_find(rows)];
        size_t query = 1 + strcspn(text + 1, "\n");
        size_t body = query < len ? query + 1 : len;
        text[query < len ? query : len] = '\0';
        call_run(&a, row->more, text + 1, bytes_of(text + body, len - body));
    }
    arena_done(&a);
    return 0;
}
