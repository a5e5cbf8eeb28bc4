#include "enroll/event_message.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* A level of a topic; a value that is missing, or would be more than one level, is "-". */
static const char *level(const json_t *event, const char *name)
{
    const char *text = json_string_value(json_object_get(event, name));
    return text && text[0] && !strpbrk(text, "+#/") ? text : "-";
}

/* Behind the last dot: device.renewed is renewed. */
static const char *kind_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

static const char *dumped(struct arena *arena, json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    const char *copy = text ? arena_strdup(arena, text) : NULL;
    free(text);
    json_decref(object);
    return copy;
}

/* As AWS IoT says it of a certificate that waits. */
static struct event_message aws_pending(struct arena *arena, const json_t *event)
{
    const char *ca = level(event, "ca_certificate_id");
    json_int_t registered = json_integer_value(json_object_get(event, "registered_at"));
    json_t *payload =
        json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "certificateId", level(event, "certificate_id"),
                  "caCertificateId", ca, "timestamp",
                  json_integer_value(json_object_get(event, "timestamp_ms")), "certificateStatus",
                  "PENDING_ACTIVATION", "awsAccountId", "", "certificateRegistrationTimestamp",
                  json_sprintf("%lld", (long long)registered));
    return (struct event_message){arena_printf(arena, "$aws/events/certificates/registered/%s", ca),
                                  dumped(arena, payload)};
}

size_t event_messages(struct arena *arena, const char *event,
                      struct event_message ret[EVENT_MAX_MESSAGES])
{
    json_t *json = json_loads(event, 0, NULL);
    const char *name = json_string_value(json_object_get(json, "event"));
    size_t count = 0;
    if (name) {
        ret[count++] = (struct event_message){arena_printf(arena, "$muster/events/%s/%s/%s",
                                                           level(json, "product"),
                                                           level(json, "serial"), kind_of(name)),
                                              arena_strdup(arena, event)};
        if (strcmp(name, "certificate.pending") == 0)
            ret[count++] = aws_pending(arena, json);
    }
    json_decref(json);
    for (size_t i = 0; i < count; i++) {
        if (!ret[i].topic || !ret[i].payload)
            return 0;
    }
    return count;
}
