#include "proto/admin/call.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json_out.h"
#include "base/limit.h"
#include "base/secret.h"
#include "base/text.h"
#include "enroll/catalog.h"
#include "enroll/journal.h"
#include "enroll/service.h"
#include "proto/admin/hooks.h"
#include "proto/route.h"

enum { DEFAULT_LIMIT = 100, MAX_LINK_BYTES = 4096, MAX_OP_BYTES = 1024, LOGIN_RETRY_S = 30 };

static enum err no_memory(struct exchange *x)
{
    return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
}

static enum admin_role role_parse(const char *name)
{
    if (strcmp(name, "admin") == 0)
        return ADMIN_ADMIN;
    if (strcmp(name, "broker") == 0)
        return ADMIN_BROKER;
    return strcmp(name, "operator") == 0 ? ADMIN_OPERATOR : ADMIN_VIEWER;
}

static bool role_may(enum admin_role role, int access)
{
    if (role == ADMIN_BROKER || access == ADMIN_BROKER)
        return access == ADMIN_BROKER && (role == ADMIN_BROKER || role == ADMIN_ADMIN);
    return (int)role >= access;
}

static const char *op_json(struct exchange *x, const struct desk_operator *o)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_OP_BYTES);
    json_begin_object(&b);
    json_text(&b, "actor", o->name);
    json_text(&b, "source", x->source);
    json_text(&b, "request", x->request_id);
    if (o->product_id != 0)
        json_int(&b, "scope", o->product_id);
    json_end_object(&b);
    return b.overflow ? NULL : arena_strdup(x->arena, buf_text(&b));
}

static enum err bearer_hash(struct exchange *x, uint8_t hash[SHA256_BYTES])
{
    const char *header = exchange_header(x, "Authorization");
    if (!header || strncasecmp(header, "Bearer ", 7) != 0)
        return fault_set(&x->fault, FAULT_ADMIN_DENIED, "send Authorization: Bearer TOKEN");
    return digest_sha256(bytes_text(header + 7), hash);
}

/* Guessing 256 bits is hopeless; what is limited is the noise. A right token is never held up. */
static enum err login_failed(struct service *service, struct exchange *x)
{
    if (source_limit_take(service->login_limit, x->source, clock_mono_us()))
        return fault_set(&x->fault, FAULT_ADMIN_DENIED, "no such token, or it was revoked");
    x->fault.retry_after_s = LOGIN_RETRY_S;
    return fault_set(&x->fault, FAULT_RATE_LIMITED, "too many wrong admin tokens");
}

static enum err session_open(struct service *service, struct exchange *x, struct admin_session *s)
{
    uint8_t hash[SHA256_BYTES];
    enum err e = bearer_hash(x, hash);
    if (e)
        return e;
    e = desk_login(service->db, bytes_of(hash, sizeof(hash)), x->arena, &s->op);
    if (e == ERR_NOT_FOUND)
        return login_failed(service, x);
    if (e)
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "%s", err_name(e));
    s->role = role_parse(s->op.role);
    s->json = op_json(x, &s->op);
    return s->json ? ERR_OK : no_memory(x);
}

static enum err caller_find(struct service *service, struct exchange *x, struct admin_session *s)
{
    if (!metrics_scraper(service, x))
        return session_open(service, x, s);
    *s = (struct admin_session){
        .op = {.name = "scrape", .role = "viewer"}, .role = ADMIN_VIEWER, .scrape = true};
    return ERR_OK;
}

enum err admin_authenticate(struct service *service, const struct route *row, struct exchange *x)
{
    struct admin_session *s = arena_alloc(x->arena, sizeof(*s));
    enum err e = s ? caller_find(service, x, s) : no_memory(x);
    if (e) {
        exchange_add_header(x, "WWW-Authenticate", "Bearer");
        return e;
    }
    x->adapter = s;
    x->log_credential = s->op.name;
    if (!role_may(s->role, (int)row->access))
        return fault_set(&x->fault, FAULT_ADMIN_FORBIDDEN, "the token's role is %s", s->op.role);
    return ERR_OK;
}

int admin_hex_add(struct arena *arena, json_t *args, const char *name, struct bytes value)
{
    const char *hex = text_hex(arena, value);
    return hex ? json_object_set_new(args, name, json_string(hex)) : -1;
}

enum err admin_refused(struct exchange *x, enum err e, const char *message)
{
    const char *detail = strchr(message, '\n');
    switch (e) {
    case ERR_DENIED: {
        const char *code = arena_copy(x->arena, message, strcspn(message, "\n"));
        return fault_set(&x->fault, code ? fault_parse(code) : FAULT_INTERNAL, "%s",
                         detail ? detail + 1 : "");
    }
    case ERR_CONFLICT:
        return fault_set(&x->fault, FAULT_REQUEST_EXISTS, "%s", message);
    case ERR_NOT_FOUND:
        return fault_set(&x->fault, FAULT_OBJECT_NOT_FOUND, "%s", message);
    case ERR_INVALID:
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%s", message);
    case ERR_UNAVAILABLE:
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "%s", message);
    case ERR_OK:
    case ERR_NO_MEMORY:
    case ERR_SYSTEM:
        break;
    }
    return fault_set(&x->fault, FAULT_INTERNAL, "%s", message);
}

enum err admin_reply(struct exchange *x, int status, const char *json)
{
    const char *text = arena_printf(x->arena, "%s\n", json);
    if (!text)
        return no_memory(x);
    exchange_reply(x, status, "application/json", bytes_text(text));
    return ERR_OK;
}

/* RFC 8288: a full page has a next one, which may be empty. */
static enum err link_add(struct exchange *x, const struct desk_answer *answer, int64_t limit)
{
    _cleanup_(buf_donep) struct buf b = {0};
    if (!answer->next || answer->rows < limit)
        return ERR_OK;
    buf_init(&b, MAX_LINK_BYTES);
    buf_printf(&b, "<%s?after=", x->path);
    text_add_url(&b, answer->next);
    for (size_t i = 0; i < x->query_count; i++) {
        if (strcmp(x->query[i].name, "after") == 0)
            continue;
        buf_printf(&b, "&%s=", x->query[i].name);
        text_add_url(&b, x->query[i].value);
    }
    buf_add_text(&b, ">; rel=\"next\"");
    const char *link = b.overflow ? NULL : arena_strdup(x->arena, buf_text(&b));
    if (!link)
        return no_memory(x);
    exchange_add_header(x, "Link", link);
    return ERR_OK;
}

/* The answer as the call's `after` wants it. */
static enum err answer_complete(const struct admin_call *call, struct service *service,
                                struct exchange *x, const json_t *args, const char **json)
{
    if (!call->after)
        return ERR_OK;
    _cleanup_(json_decrefp) json_t *answer = json_loads(*json, JSON_DECODE_ANY, NULL);
    enum err e = answer ? call->after(service, x, args, answer) : no_memory(x);
    if (e)
        return e;
    char *text = json_dumps(answer, JSON_COMPACT | JSON_ENCODE_ANY);
    char *copy = text ? arena_strdup(x->arena, text) : NULL;
    free(text);
    if (!copy)
        return no_memory(x);
    *json = copy;
    return ERR_OK;
}

/* What these calls end is in a journal before anybody is told so; the change stands if that fails.
 * The rest are not kept from their answers, some of which are told once, by what others left due.
 */
static enum err ended_journal(struct service *service, struct exchange *x, enum desk_call call)
{
    static const enum desk_call ending[] = {
        DESK_DEVICE_QUARANTINE, DESK_DEVICE_RELEASE, DESK_DEVICE_RESET, DESK_DEVICE_RETIRE,
        DESK_CERT_REVOKE,       DESK_CERT_ACTIVATE,  DESK_CA_CRL,
    };
    for (size_t i = 0; i < ARRAY_LEN(ending); i++) {
        if (ending[i] == call)
            return journal_drain(service->journal, &x->fault);
    }
    return ERR_OK;
}

enum err admin_ask(struct service *service, struct exchange *x, enum desk_call call,
                   const json_t *args, struct desk_answer *ret_answer)
{
    const struct admin_session *s = x->adapter;
    char message[DB_MAX_MESSAGE_BYTES] = "";
    char *text = json_dumps(args, JSON_COMPACT);
    enum err e = text ? desk_call(service->db, call, s->json, text, x->arena, ret_answer, message)
                      : ERR_NO_MEMORY;
    free(text);
    if (e)
        return admin_refused(x, e, message);
    return ended_journal(service, x, call);
}

static enum err desk_run(const struct admin_call *call, struct service *service, struct exchange *x,
                         json_t *args)
{
    struct desk_answer answer = {0};
    enum err e = admin_ask(service, x, call->desk, args, &answer);
    if (e)
        return e;
    if (call->changes_catalog)
        catalog_expire(service->catalog);
    if (call->list)
        e = link_add(x, &answer, json_integer_value(json_object_get(args, "limit")));
    if (!e)
        e = answer_complete(call, service, x, args, &answer.json);
    if (!e && call->after)
        e = ended_journal(service, x, call->desk);
    if (e)
        return e;
    if (call->status == 204) {
        exchange_reply(x, 204, NULL, bytes_of(NULL, 0));
        return ERR_OK;
    }
    return admin_reply(x, call->status ? call->status : 200, answer.json);
}

enum err admin_handle(struct service *service, struct exchange *x)
{
    const struct admin_call *call = x->route->more;
    _cleanup_(json_decrefp) json_t *args = NULL;
    enum err e = admin_args(call, x, &args);
    if (!e && call->list && !json_object_get(args, "limit"))
        e = json_object_set_new(args, "limit", json_integer(DEFAULT_LIMIT)) == 0 ? ERR_OK
                                                                                 : no_memory(x);
    if (!e && call->before)
        e = call->before(service, x, args);
    return e ? e : desk_run(call, service, x, args);
}
