/*
 * Keeps the broker's table of admitted certificates as the registry has it. The plugin tells of its
 * table, the feed reads the registry four times a second and sends what is missing. Replicas do so
 * side by side: the plugin takes a batch only if its counter is the one seen before the registry
 * was read, so what is out of date is dropped there, and a load that another replica's CLEAR cut
 * short is noticed by its mark. Whoever made a feed frees it. Threads: any; one of its own.
 */
#pragma once

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "enroll/metrics.h"
#include "store/db.h"

struct gate_feed;

/* Sends a batch; that it arrived shows in the plugin's status. */
typedef enum err (*gate_send)(void *ctx, struct bytes batch);

enum err gate_feed_new(struct db *db, struct metrics_mqtt *cells, gate_send send, void *ctx,
                       struct gate_feed **ret_feed) MUST_CHECK;

/* The plugin's word on its table, as it came. */
void gate_feed_status(struct gate_feed *f, struct bytes text);

/* The connection is lost: nothing is known of the table until the next status. */
void gate_feed_away(struct gate_feed *f);

/* Stops the thread and frees. */
void gate_feed_free(struct gate_feed *f);
