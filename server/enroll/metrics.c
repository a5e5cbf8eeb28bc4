#include "enroll/metrics.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* Upper bounds in microseconds; the last bucket has none. */
static const int64_t bounds_us[] = {250,   500,   1000,   2500,   5000,    10000,
                                    25000, 50000, 100000, 250000, 1000000, 5000000};

struct histogram {
    atomic_uint_fast64_t buckets[ARRAY_LEN(bounds_us) + 1];
    atomic_uint_fast64_t sum_us;
};

struct metrics {
    atomic_uint_fast64_t requests[METRICS_LISTENER_COUNT][FAULT_COUNT];
    struct histogram durations[METRICS_LISTENER_COUNT];
    atomic_uint_fast64_t unasked[METRICS_LISTENER_COUNT];
    struct histogram steps[METRICS_MAX_STEPS];
    _Atomic(const char *) step_names[METRICS_MAX_STEPS];
};

static const char *const listener_names[] = {"device", "admin", "proxy"};

enum err metrics_new(struct metrics **ret_metrics)
{
    struct metrics *m = calloc(1, sizeof(*m));
    if (!m)
        return ERR_NO_MEMORY;
    *ret_metrics = m;
    return ERR_OK;
}

void metrics_free(struct metrics *m)
{
    free(m);
}

static void observe(struct histogram *h, int64_t us)
{
    size_t i = 0;
    while (i < ARRAY_LEN(bounds_us) && us > bounds_us[i])
        i++;
    atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum_us, us > 0 ? (uint64_t)us : 0, memory_order_relaxed);
}

void metrics_request(struct metrics *m, enum metrics_listener listener, enum fault_code outcome,
                     int64_t us)
{
    atomic_fetch_add_explicit(&m->requests[listener][outcome], 1, memory_order_relaxed);
    observe(&m->durations[listener], us);
}

void metrics_unasked(struct metrics *m, enum metrics_listener listener)
{
    atomic_fetch_add_explicit(&m->unasked[listener], 1, memory_order_relaxed);
}

void metrics_step(struct metrics *m, unsigned number, const char *name, int64_t us)
{
    if (number >= METRICS_MAX_STEPS)
        return;
    atomic_store_explicit(&m->step_names[number], name, memory_order_relaxed);
    observe(&m->steps[number], us);
}

static uint64_t value_of(const atomic_uint_fast64_t *cell)
{
    return atomic_load_explicit(cell, memory_order_relaxed);
}

static void histogram_write(struct buf *b, const char *name, const char *label, const char *value,
                            const struct histogram *h)
{
    uint64_t count = 0;
    for (size_t i = 0; i < ARRAY_LEN(bounds_us); i++) {
        count += value_of(&h->buckets[i]);
        buf_printf(b, "%s_bucket{%s=\"%s\",le=\"%g\"} %llu\n", name, label, value,
                   (double)bounds_us[i] / 1e6, (unsigned long long)count);
    }
    count += value_of(&h->buckets[ARRAY_LEN(bounds_us)]);
    buf_printf(b, "%s_bucket{%s=\"%s\",le=\"+Inf\"} %llu\n", name, label, value,
               (unsigned long long)count);
    buf_printf(b, "%s_sum{%s=\"%s\"} %.6f\n", name, label, value,
               (double)value_of(&h->sum_us) / 1e6);
    buf_printf(b, "%s_count{%s=\"%s\"} %llu\n", name, label, value, (unsigned long long)count);
}

static void requests_write(const struct metrics *m, struct buf *b)
{
    buf_add_text(b, "# HELP muster_requests_total Requests answered, by outcome: ok or the code of "
                    "the refusal\n# TYPE muster_requests_total counter\n");
    for (int l = 0; l < METRICS_LISTENER_COUNT; l++) {
        for (int c = 0; c < FAULT_COUNT; c++) {
            uint64_t n = value_of(&m->requests[l][c]);
            if (n > 0 || c == FAULT_NONE)
                buf_printf(b, "muster_requests_total{listener=\"%s\",outcome=\"%s\"} %llu\n",
                           listener_names[l],
                           c == FAULT_NONE ? "ok" : fault_row((enum fault_code)c)->code,
                           (unsigned long long)n);
        }
    }
}

static void unasked_write(const struct metrics *m, struct buf *b)
{
    buf_add_text(b, "# HELP muster_connections_without_request_total Connections that ended before "
                    "a request\n# TYPE muster_connections_without_request_total counter\n");
    for (int l = 0; l < METRICS_LISTENER_COUNT; l++)
        buf_printf(b, "muster_connections_without_request_total{listener=\"%s\"} %llu\n",
                   listener_names[l], (unsigned long long)value_of(&m->unasked[l]));
}

void metrics_write(const struct metrics *m, struct buf *b)
{
    requests_write(m, b);
    unasked_write(m, b);
    buf_add_text(b, "# HELP muster_request_seconds Time from headers to answer\n# TYPE "
                    "muster_request_seconds histogram\n");
    for (int l = 0; l < METRICS_LISTENER_COUNT; l++)
        histogram_write(b, "muster_request_seconds", "listener", listener_names[l],
                        &m->durations[l]);
    buf_add_text(b, "# HELP muster_step_seconds Time of the steps of an enrolment; record is the "
                    "database\n# TYPE muster_step_seconds histogram\n");
    for (int i = 0; i < METRICS_MAX_STEPS; i++) {
        const char *name = atomic_load_explicit(&m->step_names[i], memory_order_relaxed);
        if (name)
            histogram_write(b, "muster_step_seconds", "step", name, &m->steps[i]);
    }
}

void metrics_gauge(struct buf *b, const char *name, const char *label, const char *value,
                   int64_t number)
{
    if (label)
        buf_printf(b, "%s{%s=\"%s\"} %lld\n", name, label, value, (long long)number);
    else
        buf_printf(b, "%s %lld\n", name, (long long)number);
}
