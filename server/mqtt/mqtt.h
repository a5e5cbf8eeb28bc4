/*
 * musterd at the MQTT broker: the requests that devices make there, and the table of certificates
 * that the broker's plugin admits (model/broker_wire.h). Made, drained and freed by main. Threads:
 * owner only.
 */
#pragma once

#include "mqtt/client.h"
#include "mqtt/requests.h"

struct mqtt;

struct mqtt_config {
    struct mqtt_client_config client; /* max_unsent is set here */
    struct requests_config requests;
};

/* Starts; that the broker is away is no failure. */
enum err mqtt_new(const struct mqtt_config *config, struct service *service,
                  struct mqtt **ret_mqtt) MUST_CHECK;

/* Has the broker publish an event, and waits until it has it. ctx is the struct mqtt. */
enum err mqtt_event(void *ctx, const char *topic, struct bytes payload) MUST_CHECK;

/* No new requests: the other replicas get them. */
void mqtt_quiesce(struct mqtt *m);

/* Requests queued or worked on. */
unsigned mqtt_active(struct mqtt *m);

void mqtt_free(struct mqtt *m);
