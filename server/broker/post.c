#include "broker/post.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "broker/topics.h"

enum { STATUS_BYTES = 160, NUMBER_BYTES = 24 };

struct stamp {
    const char *name;
    const char *value;
};

static bool post(const char *client_id, const char *topic, struct bytes payload, int qos,
                 const struct stamp *stamps, size_t count)
{
    mosquitto_property *properties = NULL;
    int rc = MOSQ_ERR_SUCCESS;
    for (size_t i = 0; i < count && rc == MOSQ_ERR_SUCCESS; i++)
        rc = mosquitto_property_add_string_pair(&properties, MQTT_PROP_USER_PROPERTY,
                                                stamps[i].name, stamps[i].value);
    if (rc == MOSQ_ERR_SUCCESS)
        rc = mosquitto_broker_publish_copy(client_id, topic, (int)payload.len,
                                           payload.len > 0 ? (const void *)payload.data : "", qos,
                                           false, properties);
    if (rc != MOSQ_ERR_SUCCESS)
        mosquitto_property_free_all(&properties);
    return rc == MOSQ_ERR_SUCCESS;
}

static const char *text_or_empty(const char *s)
{
    return s ? s : "";
}

bool post_request(const struct mosquitto_evt_message *ev, const struct identity *who,
                  const struct conn *n)
{
    char cert[HEX_BYTES], generation[NUMBER_BYTES];
    hex_of(who->cert, cert);
    snprintf(generation, sizeof(generation), "%" PRIu64, n->generation);
    const struct stamp stamps[] = {
        {WIRE_CERTIFICATE, cert},
        {WIRE_CLIENT, n->id},
        {WIRE_CONNECTION, generation},
        {WIRE_TOPIC, ev->topic},
        {WIRE_SOURCE, text_or_empty(mosquitto_client_address(ev->client))},
    };
    return post(NULL, WIRE_REQUEST_TOPIC, bytes_of(ev->payload, ev->payloadlen), 1, stamps,
                ARRAY_LEN(stamps));
}

void post_denied(struct plugin *p, const struct mosquitto *client, const struct identity *who,
                 const char *what, const char *topic)
{
    char cert[HEX_BYTES], shown[TOPIC_SHOWN_BYTES];
    if (!sample_take(&p->denied, clock_mono_us()))
        return;
    hex_of(who->cert, cert);
    topic_show(topic, shown);
    const struct stamp stamps[] = {
        {WIRE_CERTIFICATE, cert},
        {WIRE_CLIENT, text_or_empty(mosquitto_client_id(client))},
        {WIRE_SOURCE, text_or_empty(mosquitto_client_address(client))},
        {WIRE_TOPIC, shown},
        {WIRE_ACTION, what},
    };
    post(NULL, WIRE_DENIED_TOPIC, bytes_text(NULL), 0, stamps, ARRAY_LEN(stamps));
}

void post_seen(const struct mosquitto *client, const struct identity *who)
{
    char cert[HEX_BYTES];
    hex_of(who->cert, cert);
    const struct stamp stamps[] = {
        {WIRE_CERTIFICATE, cert},
        {WIRE_CLIENT, text_or_empty(mosquitto_client_id(client))},
        {WIRE_SOURCE, text_or_empty(mosquitto_client_address(client))},
    };
    post(NULL, WIRE_SEEN_TOPIC, bytes_text(NULL), 1, stamps, ARRAY_LEN(stamps));
}

/* With quality of service 0: of others Mosquitto has 20 on their way to a client, and in a storm of
 * connections its loop turns once in a second or two. A device that is not heard tries again. */
void post_unknown(const struct mosquitto *client, const struct identity *who, struct bytes der)
{
    char cert[HEX_BYTES];
    hex_of(who->cert, cert);
    const struct stamp stamps[] = {
        {WIRE_CERTIFICATE, cert},
        {WIRE_CLIENT, text_or_empty(mosquitto_client_id(client))},
        {WIRE_SOURCE, text_or_empty(mosquitto_client_address(client))},
    };
    post(NULL, WIRE_UNKNOWN_TOPIC, der, 0, stamps, ARRAY_LEN(stamps));
}

bool post_answer(const char *client_id, const char *topic, struct bytes payload)
{
    return post(client_id, topic, payload, 0, NULL, 0);
}

void post_event(const char *topic, struct bytes payload)
{
    post(NULL, topic, payload, 1, NULL, 0);
}

void post_status(struct plugin *p, int64_t now_us)
{
    char text[STATUS_BYTES];
    snprintf(text, sizeof(text), WIRE_GATE_FORMAT, (unsigned long long)p->counter,
             (long long)p->position, (long long)table_count(p->table), p->ready);
    post(NULL, WIRE_GATE_TOPIC, bytes_text(text), 0, NULL, 0);
    p->status_us = now_us;
}
