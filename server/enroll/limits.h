/*
 * Rate limits of enrolments: per source address in this process, per template and in all across
 * the replicas, by slots leased from the registry (store/lease.h, enroll/limit_slots.h). A caller
 * waits for its slot outside the admission gate and without a database connection; past the queue
 * it is refused with a time to come back that nobody else was given.
 * Whoever made the limits frees them. Threads: any. One lock, held for arithmetic only; the lock of
 * the source limit is taken inside it, the gate's never.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "enroll/limit_slots.h"
#include "model/fault.h"

struct gate;
struct limits;

enum limit_kind { LIMIT_GLOBAL, LIMIT_TEMPLATE, LIMIT_CLAIM, LIMIT_SOURCE, LIMIT_KIND_COUNT };
enum { LIMIT_MAX_KEYS = 3 };

struct limits_config {
    struct limit_rate global;
    struct limit_rate source;
    unsigned renewal_share; /* percent */
    unsigned wait_ms;       /* for one's turn */
    unsigned max_waiting;   /* callers */
};

/* Where slots come from. */
typedef enum err (*limits_lease)(void *ctx, const struct lease_request *request,
                                 struct lease_run *ret_run);

/* They come from the registry; ctx is a struct db. */
enum err limits_database(void *ctx, const struct lease_request *request,
                         struct lease_run *ret_run) MUST_CHECK;

enum err limits_new(const struct limits_config *config, limits_lease lease, void *ctx,
                    struct limits **ret_limits) MUST_CHECK;
void limits_free(struct limits *l);

/* Other settings from now on; slots that are leased or waited for keep theirs. */
enum err limits_configure(struct limits *l, const struct limits_config *config) MUST_CHECK;

/* One rate that holds for this caller; no rate is no limit. */
struct limit_key {
    enum limit_kind kind; /* LIMIT_TEMPLATE or LIMIT_CLAIM */
    int64_t id;
    struct limit_rate rate;
};

struct limits_ask {
    const char *source;
    bool renewal;
    struct limit_key keys[LIMIT_MAX_KEYS - 1];
    size_t key_count;
    struct gate *gate; /* the caller is inside; NULL: in none */
};

/* Returns when it is the caller's turn. ERR_DENIED with load.rate_limited,
 * claim.rate_limited or db.unavailable. */
enum err limits_pass(struct limits *l, const struct limits_ask *ask,
                     struct fault *fault) MUST_CHECK;

/* Appends counters and gauges in Prometheus' text format. */
void limits_write(struct limits *l, struct buf *b);
