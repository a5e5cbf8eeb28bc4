#include "broker/topics.h"

#include <string.h>

#include "base/text.h"
#include "model/broker_wire.h"

enum { MAX_TEMPLATE_CHARS = 36, MAX_EVENT_TOPIC_CHARS = 512 };

/* What follows the prefix in s, NULL when s does not begin with it. */
static const char *after(const char *s, const char *prefix)
{
    size_t len = strlen(prefix);
    return s && strncmp(s, prefix, len) == 0 ? s + len : NULL;
}

static const char *after_either(const char *s, const char *a, const char *b)
{
    const char *rest = after(s, a);
    return rest ? rest : after(s, b);
}

static const char *after_template(const char *s)
{
    static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    size_t len = s ? strspn(s, chars) : 0;
    return len > 0 && len <= MAX_TEMPLATE_CHARS ? s + len : NULL;
}

/* What follows a request's topic, NULL when it is none. */
static const char *after_request(const char *topic)
{
    const char *rest = after(topic, "$aws/provisioning-templates/");
    if (rest)
        rest = after(after_template(rest), "/provision/");
    else
        rest =
            after_either(topic, "$aws/certificates/create/", "$aws/certificates/create-from-csr/");
    return after_either(rest, "json", "cbor");
}

bool topic_is_request(const char *topic)
{
    const char *rest = after_request(topic);
    return rest && *rest == '\0';
}

bool topic_is_answer(const char *topic)
{
    const char *rest = after_either(after_request(topic), "/accepted", "/rejected");
    return rest && *rest == '\0';
}

bool topic_is_event(const char *topic)
{
    const char *rest = after_either(topic, "$aws/events/", "$muster/events/");
    return rest && *rest != '\0' && strlen(topic) <= MAX_EVENT_TOPIC_CHARS &&
           !strpbrk(rest, "+#") && text_is_printable_utf8(rest);
}

bool client_id_valid(const char *id)
{
    size_t len = id ? strnlen(id, WIRE_MAX_CLIENT_CHARS + 1) : 0;
    return len > 0 && len <= WIRE_MAX_CLIENT_CHARS && !strpbrk(id, "+#/") &&
           text_is_printable_utf8(id);
}

bool client_id_is_service(const char *id)
{
    return after(id, WIRE_SERVICE_CLIENT_PREFIX) != NULL;
}

void topic_show(const char *topic, char ret_text[TOPIC_SHOWN_BYTES])
{
    size_t n = 0;
    for (; topic && topic[n] && n < TOPIC_SHOWN_BYTES - 1; n++)
        ret_text[n] = topic[n] >= 0x20 && topic[n] < 0x7f ? topic[n] : '?';
    ret_text[n] = '\0';
}
