/*
 * Requests that devices make by the broker: a bounded queue and the threads that work on it. Of one
 * claim at most half of them run at a time, so that a claim that waits for its rate or its hook
 * leaves room for the others; past the queue a request is told 503 at once. Whoever made it
 * frees it. Threads: any may hand messages in.
 */
#pragma once

#include "base/err.h"
#include "mqtt/job.h"

struct requests;

struct requests_config {
    unsigned workers;
    unsigned max_queued;
};

enum err requests_new(const struct requests_config *config, struct service *service,
                      struct mqtt_client *client, struct requests **ret_requests) MUST_CHECK;

/* Copies the message and returns. */
void requests_take(struct requests *r, enum mqtt_job_kind kind, const struct mqtt_message *m);

/* Requests queued or worked on. */
unsigned requests_active(struct requests *r);

/* Drops what is queued, waits for what is worked on, and frees. */
void requests_free(struct requests *r);
