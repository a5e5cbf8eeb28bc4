#include "mqtt/job.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "model/broker_wire.h"

enum {
    JOB_ARENA_BYTES = 4 << 20,
    MAX_TOPIC_BYTES = 512,
    MAX_SOURCE_BYTES = 64,
    MAX_NUMBER_BYTES = 20,
    MAX_ACTION_BYTES = 16,
    HEX_BYTES = 2 * SHA256_BYTES,
};

/* Keys of what is no request: no claim's fingerprint begins so. Contacts of unknown certificates
 * are shared among a few, so that they may be worked on side by side. */
enum { KEY_DENIED, KEY_SEEN, KEY_UNKNOWN, KEY_UNKNOWN_COUNT = 64 };

static uint64_t key_of(const struct mqtt_job *j)
{
    uint64_t key;
    memcpy(&key, j->fingerprint, sizeof(key));
    if (j->kind == JOB_REQUEST)
        return key;
    if (j->kind == JOB_UNKNOWN)
        return KEY_UNKNOWN + key % KEY_UNKNOWN_COUNT;
    return j->kind == JOB_DENIED ? KEY_DENIED : KEY_SEEN;
}

static enum err text_take(struct mqtt_job *j, const struct mqtt_message *m, const char *name,
                          size_t max, const char **ret_text)
{
    struct bytes value = mqtt_message_property(m, name);
    if (value.len > max || (value.len > 0 && memchr(value.data, '\0', value.len)))
        return ERR_INVALID;
    const char *text =
        arena_copy(&j->arena, value.len > 0 ? value.data : (const uint8_t *)"", value.len);
    if (!text)
        return ERR_NO_MEMORY;
    if (!text_is_printable_utf8(text))
        return ERR_INVALID;
    *ret_text = text;
    return ERR_OK;
}

static enum err texts_take(struct mqtt_job *j, const struct mqtt_message *m)
{
    const char *hex = "";
    enum err e = text_take(j, m, WIRE_CERTIFICATE, HEX_BYTES, &hex);
    if (!e)
        e = text_parse_hex(hex, j->fingerprint, sizeof(j->fingerprint));
    if (!e)
        e = text_take(j, m, WIRE_CLIENT, WIRE_MAX_CLIENT_CHARS, &j->client);
    if (!e)
        e = text_take(j, m, WIRE_CONNECTION, MAX_NUMBER_BYTES, &j->connection);
    if (!e)
        e = text_take(j, m, WIRE_TOPIC, MAX_TOPIC_BYTES, &j->topic);
    if (!e)
        e = text_take(j, m, WIRE_SOURCE, MAX_SOURCE_BYTES, &j->source);
    if (!e)
        e = text_take(j, m, WIRE_ACTION, MAX_ACTION_BYTES, &j->action);
    if (!e && j->kind == JOB_REQUEST && (j->client[0] == '\0' || j->connection[0] == '\0'))
        e = ERR_INVALID; /* there is nobody to answer */
    return e;
}

static enum err payload_take(struct mqtt_job *j, const struct mqtt_message *m)
{
    size_t len = m->payload.len;
    if (j->kind == JOB_DENIED || j->kind == JOB_SEEN || len == 0)
        return ERR_OK;
    if (len > WIRE_MAX_REQUEST_BYTES)
        return ERR_INVALID;
    j->payload = bytes_of(arena_copy(&j->arena, m->payload.data, len), len);
    return j->payload.data ? ERR_OK : ERR_NO_MEMORY;
}

enum err mqtt_job_new(enum mqtt_job_kind kind, const struct mqtt_message *message,
                      struct mqtt_job **ret_job)
{
    struct mqtt_job *j = calloc(1, sizeof(*j));
    if (!j)
        return ERR_NO_MEMORY;
    j->kind = kind;
    j->arrived_us = clock_mono_us();
    arena_init(&j->arena, JOB_ARENA_BYTES);
    enum err e = id_new(j->request_id);
    if (!e)
        e = texts_take(j, message);
    if (!e)
        e = payload_take(j, message);
    if (e) {
        mqtt_job_free(j);
        return e;
    }
    j->item.key = key_of(j);
    *ret_job = j;
    return ERR_OK;
}

void mqtt_job_free(struct mqtt_job *job)
{
    if (!job)
        return;
    arena_done(&job->arena);
    free(job);
}
