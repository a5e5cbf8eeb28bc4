/*
 * Tells events to webhooks and to the broker's topics (docs/events.md): at least once, in order for
 * each device. One thread goes through the sinks; of several replicas one has a sink at a time.
 * What is delivered twice bears the same id. Whoever made the publisher frees it. Threads: any.
 */
#pragma once

#include <stdatomic.h>

#include "base/bytes.h"
#include "base/err.h"

struct db;
struct events;

struct events_config {
    struct bytes secret; /* signs webhooks; copied, cleansed at the end; len 0: none is called */
    const char *ca;      /* PEM file: CAs of https webhooks; NULL: the system's */
    /* Publishes at the broker and waits until it has it; NULL: there is no broker. */
    enum err (*publish)(void *ctx, const char *topic, struct bytes payload);
    void *ctx;
};

enum err events_new(struct db *db, const struct events_config *config,
                    struct events **ret_events) MUST_CHECK;
void events_free(struct events *e);
