/*
 * Counters and histograms of this process, for GET /metrics. The cells are atomic and never
 * reset; reading takes no lock. Made by main, outlives every request. Threads: any.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/histogram.h"
#include "model/fault.h"

enum metrics_listener {
    METRICS_DEVICE,
    METRICS_ADMIN,
    METRICS_PROXY,
    METRICS_REVOCATION,
    METRICS_SCEP,
    METRICS_SOCKETS,                /* those before have connections of their own */
    METRICS_MQTT = METRICS_SOCKETS, /* what comes by the broker */
    METRICS_LISTENER_COUNT
};

/* Which door of a listener a request came through; a route table says it of its rows. */
enum metrics_protocol {
    PROTOCOL_NONE, /* refused before it was known */
    PROTOCOL_EST,
    PROTOCOL_JSON,
    PROTOCOL_CONFIG,
    PROTOCOL_FLEET,
    PROTOCOL_STATION,
    PROTOCOL_DPS,
    PROTOCOL_SCEP,
    PROTOCOL_JIT,
    PROTOCOL_REVOCATION,
    PROTOCOL_HEALTH,
    PROTOCOL_ADMIN,
    PROTOCOL_COUNT
};

enum { METRICS_MAX_STEPS = 16 };

struct metrics;

/* How a request that came by the broker ended. */
enum metrics_answer {
    ANSWER_ACCEPTED,
    ANSWER_REJECTED,
    ANSWER_LOST,      /* it could not be sent */
    ANSWER_LATE,      /* none: the device had given up */
    ANSWER_MALFORMED, /* none: not to be read as a request */
    METRICS_ANSWER_COUNT
};

/* What mqtt/ tells of itself; without values until used is set. */
struct metrics_mqtt {
    atomic_bool used;
    atomic_bool connected;
    atomic_uint queued;
    atomic_uint_fast64_t answers[METRICS_ANSWER_COUNT];
    atomic_bool gate_ready;
    _Atomic(int64_t) gate_entries;
    _Atomic(int64_t) gate_even_us; /* monotonic: as of when the broker's table was right */
};

enum err metrics_new(struct metrics **ret_metrics) MUST_CHECK;
void metrics_free(struct metrics *m);

const char *metrics_listener_name(enum metrics_listener listener);

/* "none", "est", ...: also what the log calls it. */
const char *metrics_protocol_name(enum metrics_protocol protocol);

/* One answered request: its outcome (FAULT_NONE: ok) and how long it took. */
void metrics_request(struct metrics *m, enum metrics_listener listener,
                     enum metrics_protocol protocol, enum fault_code outcome, int64_t us);

/* A connection was opened, or closed. */
void metrics_connection(struct metrics *m, enum metrics_listener listener, bool opened);

/* One connection that ended without a request. */
void metrics_unasked(struct metrics *m, enum metrics_listener listener);

/* One step of the pipeline; name is a constant, the same for the same number. */
void metrics_step(struct metrics *m, unsigned number, const char *name, int64_t us);

/* A reload of the configuration: whether it was taken. */
void metrics_reload(struct metrics *m, bool taken);

/* Borrowed for the life of the metrics. */
struct metrics_mqtt *metrics_mqtt(struct metrics *m);

/* Appends everything in the text format of Prometheus, version 0.0.4. */
void metrics_write(const struct metrics *m, struct buf *b);

/* The pieces of that format: HELP and TYPE; one value, and one histogram, with an optional label.
 */
void metrics_head(struct buf *b, const char *name, const char *type, const char *help);
void metrics_value(struct buf *b, const char *name, const char *label, const char *value,
                   double number);
void metrics_histogram(struct buf *b, const char *name, const char *label, const char *value,
                       const struct histogram *h);
