/*
 * Counters and histograms of this process, for GET /metrics. The cells are atomic and never
 * reset; reading takes no lock. Made by main, outlives every request. Threads: any.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "model/fault.h"

enum metrics_listener { METRICS_DEVICE, METRICS_ADMIN, METRICS_PROXY, METRICS_LISTENER_COUNT };
enum { METRICS_MAX_STEPS = 12 };

struct metrics;

enum err metrics_new(struct metrics **ret_metrics) MUST_CHECK;
void metrics_free(struct metrics *m);

/* One answered request: its outcome (FAULT_NONE: ok) and how long it took. */
void metrics_request(struct metrics *m, enum metrics_listener listener, enum fault_code outcome,
                     int64_t us);

/* One connection that ended without a request. */
void metrics_unasked(struct metrics *m, enum metrics_listener listener);

/* One step of the pipeline; name is a constant, the same for the same number. */
void metrics_step(struct metrics *m, unsigned number, const char *name, int64_t us);

/* Appends everything in the text format of Prometheus, version 0.0.4. */
void metrics_write(const struct metrics *m, struct buf *b);

/* Appends one gauge with an optional label. */
void metrics_gauge(struct buf *b, const char *name, const char *label, const char *value,
                   int64_t number);
