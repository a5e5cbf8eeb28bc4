/*
 * A message of the broker's plugin on its way through the queue, with everything copied into its
 * own arena. Threads: owner only.
 */
#pragma once

#include "base/arena.h"
#include "base/id.h"
#include "base/secret.h"
#include "base/work_queue.h"
#include "mqtt/client.h"

struct service;

enum mqtt_job_kind { JOB_REQUEST, JOB_DENIED, JOB_SEEN, JOB_UNKNOWN };

/* Texts are printable; "" where the message has none. */
struct mqtt_job {
    struct work_item item;
    struct arena arena;
    enum mqtt_job_kind kind;
    char request_id[ID_TEXT_BYTES];
    int64_t arrived_us;
    uint8_t fingerprint[SHA256_BYTES]; /* of the client's certificate */
    const char *client;
    const char *connection;
    const char *topic;
    const char *source;
    const char *action;
    struct bytes payload;
};

/* ERR_INVALID when the message does not have what its kind needs. */
enum err mqtt_job_new(enum mqtt_job_kind kind, const struct mqtt_message *message,
                      struct mqtt_job **ret_job) MUST_CHECK;
void mqtt_job_free(struct mqtt_job *job);

/* What a claim tried and may not, into the trail; as many as a source may have written down. */
void mqtt_denied_record(struct service *service, struct mqtt_job *job);

/* The first use of a certificate, at the broker. */
void mqtt_seen_record(struct service *service, struct mqtt_job *job);
