/*
 * The connection to the broker: MQTT v5 over TLS, one client, made again whenever it is lost, with
 * pauses that double up to half a minute. A session never outlives its connection: what was not
 * delivered then is asked again by the devices. Everything is sent with quality of service 0, for
 * an answer is awaited for seconds only and a batch for the gate is acknowledged by its status.
 * Made, stopped and freed by main's thread; handlers run on Paho's threads, under its lock: they
 * copy, hand on and return. Threads: any may send.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

enum { MQTT_MAX_PROPERTIES = 6 };

/* Borrowed texts. */
struct mqtt_client_config {
    const char *host;
    uint16_t port;
    const char *ca; /* PEM files, read again for each connection */
    const char *certificate;
    const char *key;
    unsigned keep_alive_s;
    unsigned max_unsent; /* messages that Paho holds */
};

/* A user property. */
struct mqtt_property {
    const char *name;
    const char *value;
};

/* What has come; valid while its handler runs. */
struct mqtt_message {
    const char *topic;
    struct bytes payload;
    const void *properties; /* for mqtt_message_property */
};

/* The first user property of that name; len 0 where there is none. */
struct bytes mqtt_message_property(const struct mqtt_message *m, const char *name);

struct mqtt_handlers {
    void (*message)(void *ctx, const struct mqtt_message *m);
    void (*connected)(void *ctx, bool connected); /* subscribed; or away */
    void *ctx;
};

struct mqtt_client;

enum err mqtt_client_new(const struct mqtt_client_config *config,
                         const struct mqtt_handlers *handlers,
                         struct mqtt_client **ret_client) MUST_CHECK;

/* Begins to connect; that the broker is away is no failure. */
enum err mqtt_client_start(struct mqtt_client *c) MUST_CHECK;

/* ERR_UNAVAILABLE: not connected, or too much is unsent. */
enum err mqtt_client_send(struct mqtt_client *c, const char *topic,
                          const struct mqtt_property *properties, size_t count,
                          struct bytes payload) MUST_CHECK;

/* Likewise with quality of service 1, and waits until the broker has it, two seconds at most. Not
 * on Paho's threads. */
enum err mqtt_client_send_sure(struct mqtt_client *c, const char *topic,
                               const struct mqtt_property *properties, size_t count,
                               struct bytes payload) MUST_CHECK;

/* Unsubscribes from what replicas share, waiting a second at most: others get the requests. */
void mqtt_client_quiesce(struct mqtt_client *c);

/* Says goodbye. No handler runs any more, and nothing is sent. */
void mqtt_client_stop(struct mqtt_client *c);
void mqtt_client_free(struct mqtt_client *c);
