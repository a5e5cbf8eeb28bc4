#include "mqtt/mqtt.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "enroll/metrics.h"
#include "enroll/service.h"
#include "model/broker_wire.h"
#include "mqtt/gate_feed.h"

enum { SPARE_UNSENT = 64 /* besides the answers: batches, subscriptions */ };

struct mqtt {
    struct mqtt_client *client;
    struct requests *requests;
    struct gate_feed *feed;
    struct metrics_mqtt *cells;
};

static void message_take(void *ctx, const struct mqtt_message *message)
{
    const struct mqtt *m = ctx;
    if (strcmp(message->topic, WIRE_REQUEST_TOPIC) == 0)
        requests_take(m->requests, JOB_REQUEST, message);
    else if (strcmp(message->topic, WIRE_DENIED_TOPIC) == 0)
        requests_take(m->requests, JOB_DENIED, message);
    else if (strcmp(message->topic, WIRE_SEEN_TOPIC) == 0)
        requests_take(m->requests, JOB_SEEN, message);
    else if (strcmp(message->topic, WIRE_UNKNOWN_TOPIC) == 0)
        requests_take(m->requests, JOB_UNKNOWN, message);
    else if (strcmp(message->topic, WIRE_GATE_TOPIC) == 0)
        gate_feed_status(m->feed, message->payload);
}

static void connected_take(void *ctx, bool connected)
{
    const struct mqtt *m = ctx;
    atomic_store(&m->cells->connected, connected);
    if (!connected)
        gate_feed_away(m->feed);
}

static enum err batch_send(void *ctx, struct bytes batch)
{
    static const struct mqtt_property property = {WIRE_OPERATION, WIRE_OP_GATE};
    const struct mqtt *m = ctx;
    return mqtt_client_send(m->client, WIRE_CONTROL_TOPIC, &property, 1, batch);
}

static enum err parts_make(struct mqtt *m, const struct mqtt_config *config,
                           struct service *service)
{
    struct mqtt_client_config client = config->client;
    const struct mqtt_handlers handlers = {message_take, connected_take, m};
    client.max_unsent = 2 * config->requests.max_queued + config->requests.workers + SPARE_UNSENT;
    enum err e = mqtt_client_new(&client, &handlers, &m->client);
    if (!e)
        e = requests_new(&config->requests, service, m->client, &m->requests);
    if (!e)
        e = gate_feed_new(service->db, m->cells, batch_send, m, &m->feed);
    return e ? e : mqtt_client_start(m->client);
}

enum err mqtt_new(const struct mqtt_config *config, struct service *service, struct mqtt **ret_mqtt)
{
    struct mqtt *m = calloc(1, sizeof(*m));
    if (!m)
        return ERR_NO_MEMORY;
    m->cells = metrics_mqtt(service->metrics);
    enum err e = parts_make(m, config, service);
    if (e) {
        mqtt_free(m);
        return e;
    }
    atomic_store(&m->cells->used, true);
    *ret_mqtt = m;
    return ERR_OK;
}

enum err mqtt_event(void *ctx, const char *topic, struct bytes payload)
{
    const struct mqtt *m = ctx;
    const struct mqtt_property properties[] = {{WIRE_OPERATION, WIRE_OP_EVENT},
                                               {WIRE_TOPIC, topic}};
    return mqtt_client_send_sure(m->client, WIRE_CONTROL_TOPIC, properties, 2, payload);
}

void mqtt_quiesce(struct mqtt *m)
{
    mqtt_client_quiesce(m->client);
}

unsigned mqtt_active(struct mqtt *m)
{
    return requests_active(m->requests);
}

/* The client's handlers use the others, and the others send by it. */
void mqtt_free(struct mqtt *m)
{
    if (!m)
        return;
    if (m->client)
        mqtt_client_stop(m->client);
    gate_feed_free(m->feed);
    requests_free(m->requests);
    mqtt_client_free(m->client);
    free(m);
}
