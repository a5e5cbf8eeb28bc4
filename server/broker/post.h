/*
 * What the plugin sends: stamped requests, notes and the table's status to musterd, answers to one
 * client. Sent by the broker in the next turn of its loop. Threads: the broker's only.
 */
#pragma once

#include "base/bytes.h"
#include "broker/plugin.h"

/* A claim's request, under the stamp of its connection. False when memory ran out. */
bool post_request(const struct mosquitto_evt_message *ev, const struct identity *who,
                  const struct conn *n);

/* What a claim tried on a topic and may not; at most five a second. */
void post_denied(struct plugin *p, const struct mosquitto *client, const struct identity *who,
                 const char *what, const char *topic);

/* A device's certificate is used for the first time. */
void post_seen(const struct mosquitto *client, const struct identity *who);

/* A certificate that the table does not have tried to connect. */
void post_unknown(const struct mosquitto *client, const struct identity *who, struct bytes der);

/* To the client with that id only, whether it subscribed or not. */
bool post_answer(const char *client_id, const char *topic, struct bytes payload);

/* An event, to whoever may read its topic. */
void post_event(const char *topic, struct bytes payload);

void post_status(struct plugin *p, int64_t now_us);
