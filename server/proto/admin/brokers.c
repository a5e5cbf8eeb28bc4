/* What other brokers ask: the shapes of EMQX's HTTP authenticator and authoriser (JSON) and of
 * NanoMQ's auth_http (a form, answered by the status alone). */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "enroll/broker_question.h"
#include "enroll/service.h"
#include "pki/cert.h"
#include "proto/admin/hooks.h"
#include "store/enrol.h"

enum { MAX_TEXT_BYTES = 16384, MAX_FIELDS = 32 };

/* What the broker said, whichever way; texts of the arena. */
struct said {
    const char *client_id, *pem, *fingerprint, *common_name, *topic, *action, *retain;
};

static const char **field(struct said *s, const char *name)
{
    const struct {
        const char *name;
        const char **text;
    } names[] = {{"clientid", &s->client_id},
                 {"cert_pem", &s->pem},
                 {"cert_fingerprint", &s->fingerprint},
                 {"cert_common_name", &s->common_name},
                 {"cn", &s->common_name},
                 {"topic", &s->topic},
                 {"action", &s->action},
                 {"access", &s->action},
                 {"retain", &s->retain}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i].name, name) == 0)
            return names[i].text;
    }
    return NULL;
}

static enum err malformed(struct exchange *x, const char *what)
{
    return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%s", what);
}

/* Members it does not know are left: a broker's template may say more. */
static enum err json_read(struct exchange *x, struct said *s)
{
    _cleanup_(json_decrefp) json_t *body =
        json_loadb((const char *)x->body.data, x->body.len, JSON_REJECT_DUPLICATES, NULL);
    const char *name;
    json_t *value;
    if (!json_is_object(body))
        return malformed(x, "the body must be a JSON object");
    json_object_foreach(body, name, value)
    {
        const char **text = field(s, name);
        const char *given = json_is_true(value) ? "true" : json_string_value(value);
        if (!text || !given || given[0] == '\0')
            continue;
        if (strlen(given) > MAX_TEXT_BYTES)
            return malformed(x, "a member is too long");
        *text = arena_strdup(x->arena, given);
    }
    return ERR_OK;
}

static enum err form_read(struct exchange *x, struct said *s)
{
    char *rest = NULL, *text = arena_copy(x->arena, x->body.data, x->body.len);
    int fields = 0;
    if (!text)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    for (char *p = strtok_r(text, "&", &rest); p; p = strtok_r(NULL, "&", &rest)) {
        char *value = strchr(p, '=');
        if (++fields > MAX_FIELDS || !value)
            return malformed(x, "the form does not parse");
        *value++ = '\0';
        for (char *c = value; *c; c++)
            *c = *c == '+' ? ' ' : *c;
        if (text_url_decode(p) || text_url_decode(value))
            return malformed(x, "the form does not parse");
        const char **found = field(s, p);
        if (found && value[0])
            *found = value;
    }
    return ERR_OK;
}

/* The certificate itself, or its fingerprint; else the name in it will have to do. */
static enum err certificate_find(struct exchange *x, const struct said *s,
                                 struct broker_question *q)
{
    X509 *certs[1] = {0};
    size_t count = 0;
    struct cert_info info;
    uint8_t *digest = arena_alloc(x->arena, SHA256_BYTES);
    if (!digest)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    q->thing = s->common_name;
    if (s->pem) {
        enum err e = cert_parse_pem(bytes_text(s->pem), certs, 1, &count);
        if (!e)
            e = cert_describe(x->arena, certs[0], &info);
        cert_free(certs[0]);
        if (e)
            return malformed(x, "cert_pem is no certificate");
        memcpy(digest, info.fingerprint, SHA256_BYTES);
    } else if (!s->fingerprint) {
        return ERR_OK;
    } else if (text_parse_hex(s->fingerprint, digest, SHA256_BYTES)) {
        return malformed(x, "cert_fingerprint is no SHA-256 in hexadecimal");
    }
    q->fingerprint = bytes_of(digest, SHA256_BYTES);
    return ERR_OK;
}

static enum err action_parse(struct exchange *x, const struct said *s, struct broker_question *q)
{
    const char *a = s->action ? s->action : "";
    if (strcmp(a, "publish") == 0 || strcmp(a, "2") == 0)
        q->action = POLICY_PUBLISH;
    else if (strcmp(a, "subscribe") == 0 || strcmp(a, "1") == 0)
        q->action = POLICY_SUBSCRIBE;
    else
        return malformed(x, "action must be publish or subscribe");
    q->resource = s->topic;
    q->retain = s->retain && (strcmp(s->retain, "true") == 0 || strcmp(s->retain, "1") == 0);
    return s->topic ? ERR_OK : malformed(x, "topic is missing");
}

/* EMQX takes 4xx for "I do not know": a denial is 200. NanoMQ goes by the status. */
static enum err reply(struct exchange *x, bool form, bool allowed)
{
    if (form) {
        exchange_reply(x, allowed ? 200 : 403, "text/plain",
                       bytes_text(allowed ? "allow\n" : "deny\n"));
        return ERR_OK;
    }
    return admin_reply(x, 200,
                       allowed ? "{\"result\":\"allow\",\"is_superuser\":false}"
                               : "{\"result\":\"deny\",\"is_superuser\":false}");
}

static enum err answer(struct service *service, struct exchange *x, bool connects)
{
    bool form = exchange_type_is(x, "application/x-www-form-urlencoded");
    struct said s = {0};
    struct broker_question q = {.action = POLICY_CONNECT};
    struct broker_verdict v;
    struct enrol_seen seen;
    enum err e = form ? form_read(x, &s) : json_read(x, &s);
    if (!e)
        e = certificate_find(x, &s, &q);
    if (!e && !connects)
        e = action_parse(x, &s, &q);
    if (e)
        return e;
    q.client_id = s.client_id;
    e = broker_question_ask(service->db, x->arena, &q, &v);
    if (!e && connects && v.allowed && v.unused)
        e = enrol_seen_record(service->db, v.fingerprint, "broker", x->request_id, x->source,
                              x->arena, &seen);
    return e ? fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "%s", err_name(e))
             : reply(x, form, v.allowed);
}

enum err broker_auth_handle(struct service *service, struct exchange *x)
{
    return answer(service, x, true);
}

enum err broker_acl_handle(struct service *service, struct exchange *x)
{
    return answer(service, x, false);
}
