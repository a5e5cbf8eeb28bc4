#include "proto/admin/broker_said.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"

enum { MAX_TEXT_BYTES = 16384, MAX_FIELDS = 32 };

static const char **field(struct broker_said *s, const char *name)
{
    const struct {
        const char *name;
        const char **text;
    } names[] = {{"clientid", &s->client_id},
                 {"peerhost", &s->source},
                 {"ipaddr", &s->source},
                 {"ipaddress", &s->source},
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

static enum err json_read(struct exchange *x, struct broker_said *s)
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
        if (!*text)
            return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    }
    return ERR_OK;
}

static enum err pair_read(struct broker_said *s, char *pair)
{
    char *value = strchr(pair, '=');
    if (!value)
        return ERR_INVALID;
    *value++ = '\0';
    for (char *c = value; *c; c++)
        *c = *c == '+' ? ' ' : *c;
    if (text_url_decode(pair) || text_url_decode(value) || strlen(value) > MAX_TEXT_BYTES)
        return ERR_INVALID;
    const char **text = field(s, pair);
    if (text && value[0])
        *text = value;
    return ERR_OK;
}

static enum err form_read(struct exchange *x, struct broker_said *s)
{
    char *rest = NULL, *text = arena_copy(x->arena, x->body.data, x->body.len);
    int fields = 0;
    if (!text)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    for (char *p = strtok_r(text, "&", &rest); p; p = strtok_r(NULL, "&", &rest)) {
        if (++fields > MAX_FIELDS || pair_read(s, p))
            return malformed(x, "the form does not parse");
    }
    return ERR_OK;
}

static bool is_address(const char *text)
{
    struct in6_addr any;
    return inet_pton(AF_INET, text, &any) == 1 || inet_pton(AF_INET6, text, &any) == 1;
}

enum err broker_said_read(struct exchange *x, bool form, struct broker_said *ret_said)
{
    *ret_said = (struct broker_said){0};
    enum err e = form ? form_read(x, ret_said) : json_read(x, ret_said);
    if (!e && ret_said->source && !is_address(ret_said->source))
        return malformed(x, "the client's address is none");
    return e;
}
