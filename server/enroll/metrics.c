#include "enroll/metrics.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/process.h"
#include "base/text.h"

enum { MAX_LABEL_BYTES = 512, EVEN_US = 1000000 };

struct metrics {
    double started_s; /* constant */
    atomic_uint_fast64_t requests[METRICS_LISTENER_COUNT][PROTOCOL_COUNT][FAULT_COUNT];
    struct histogram durations[PROTOCOL_COUNT];
    atomic_uint_fast64_t unasked[METRICS_SOCKETS];
    struct histogram steps[METRICS_MAX_STEPS];
    _Atomic(const char *) step_names[METRICS_MAX_STEPS];
    atomic_uint_fast64_t opened[METRICS_SOCKETS];
    atomic_uint_fast64_t closed[METRICS_SOCKETS];
    atomic_uint_fast64_t reloads[2]; /* refused, taken */
    atomic_bool last_reload_taken;
    struct metrics_mqtt mqtt;
};

const char *metrics_listener_name(enum metrics_listener listener)
{
    static const char *const names[] = {
        [METRICS_DEVICE] = "device",         [METRICS_ADMIN] = "admin", [METRICS_PROXY] = "proxy",
        [METRICS_REVOCATION] = "revocation", [METRICS_SCEP] = "scep",   [METRICS_MQTT] = "mqtt"};
    return names[listener];
}

const char *metrics_protocol_name(enum metrics_protocol protocol)
{
    static const char *const names[] = {
        [PROTOCOL_NONE] = "none",     [PROTOCOL_EST] = "est",
        [PROTOCOL_JSON] = "json",     [PROTOCOL_CONFIG] = "config",
        [PROTOCOL_FLEET] = "fleet",   [PROTOCOL_STATION] = "station",
        [PROTOCOL_DPS] = "dps",       [PROTOCOL_SCEP] = "scep",
        [PROTOCOL_JIT] = "jit",       [PROTOCOL_REVOCATION] = "revocation",
        [PROTOCOL_HEALTH] = "health", [PROTOCOL_ADMIN] = "admin",
    };
    return names[protocol];
}

enum err metrics_new(struct metrics **ret_metrics)
{
    struct metrics *m = calloc(1, sizeof(*m));
    if (!m)
        return ERR_NO_MEMORY;
    for (int i = 0; i < PROTOCOL_COUNT; i++)
        m->durations[i].scale = &histogram_time;
    for (int i = 0; i < METRICS_MAX_STEPS; i++)
        m->steps[i].scale = &histogram_time;
    atomic_init(&m->last_reload_taken, true);
    m->started_s = process_started_s();
    *ret_metrics = m;
    return ERR_OK;
}

void metrics_free(struct metrics *m)
{
    free(m);
}

static void count(atomic_uint_fast64_t *cell)
{
    atomic_fetch_add_explicit(cell, 1, memory_order_relaxed);
}

static uint64_t value_of(const atomic_uint_fast64_t *cell)
{
    return atomic_load_explicit(cell, memory_order_relaxed);
}

void metrics_request(struct metrics *m, enum metrics_listener listener,
                     enum metrics_protocol protocol, enum fault_code outcome, int64_t us)
{
    count(&m->requests[listener][protocol][outcome]);
    histogram_observe(&m->durations[protocol], us);
}

void metrics_unasked(struct metrics *m, enum metrics_listener listener)
{
    count(&m->unasked[listener]);
}

void metrics_connection(struct metrics *m, enum metrics_listener listener, bool opened)
{
    count(opened ? &m->opened[listener] : &m->closed[listener]);
}

void metrics_step(struct metrics *m, unsigned number, const char *name, int64_t us)
{
    if (number >= METRICS_MAX_STEPS)
        return;
    atomic_store_explicit(&m->step_names[number], name, memory_order_relaxed);
    histogram_observe(&m->steps[number], us);
}

void metrics_reload(struct metrics *m, bool taken)
{
    count(&m->reloads[taken]);
    atomic_store_explicit(&m->last_reload_taken, taken, memory_order_relaxed);
}

void metrics_head(struct buf *b, const char *name, const char *type, const char *help)
{
    buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value as the format escapes it. */
static const char *escaped(const char *value, char out[MAX_LABEL_BYTES])
{
    size_t n = 0;
    for (; *value && n + 3 < MAX_LABEL_BYTES; value++) {
        if (*value == '\\' || *value == '"' || *value == '\n')
            out[n++] = '\\';
        out[n++] = *value == '\n' ? 'n' : *value;
    }
    out[n] = '\0';
    return out;
}

void metrics_value(struct buf *b, const char *name, const char *label, const char *value,
                   double number)
{
    char text[MAX_LABEL_BYTES];
    if (label)
        buf_printf(b, "%s{%s=\"%s\"} %.16g\n", name, label, escaped(value, text), number);
    else
        buf_printf(b, "%s %.16g\n", name, number);
}

/* name_bucket{label="value",le="le"} with the pieces there are. */
static void bucket_write(struct buf *b, const char *name, const char *label, const char *value,
                         const char *le, uint64_t n)
{
    buf_printf(b, "%s_bucket{", name);
    if (label)
        buf_printf(b, "%s=\"%s\",", label, value);
    buf_printf(b, "le=\"%s\"} %llu\n", le, (unsigned long long)n);
}

void metrics_histogram(struct buf *b, const char *name, const char *label, const char *value,
                       const struct histogram *h)
{
    char text[MAX_LABEL_BYTES], le[32];
    uint64_t n = 0;
    for (unsigned i = 0; i < h->scale->count; i++) {
        n += histogram_bucket(h, i);
        snprintf(le, sizeof(le), "%g", (double)h->scale->bounds[i] * h->scale->unit);
        bucket_write(b, name, label, value, le, n);
    }
    n += histogram_bucket(h, h->scale->count);
    bucket_write(b, name, label, value, "+Inf", n);
    snprintf(text, sizeof(text), "%s_sum", name);
    metrics_value(b, text, label, value, (double)histogram_sum(h) * h->scale->unit);
    snprintf(text, sizeof(text), "%s_count", name);
    metrics_value(b, text, label, value, (double)n);
}

/* What rules look at the growth of: a series that begins above 0 has not grown. */
static bool shown_as_zero(int code)
{
    return code == FAULT_NONE || code == FAULT_INTERNAL || code == FAULT_DB_UNAVAILABLE ||
           code == FAULT_OVERLOADED;
}

/* Of a protocol that came: what was counted, and the zeros that rules need. */
static void requests_of_write(const struct metrics *m, int l, int p, struct buf *b)
{
    uint64_t all = 0;
    for (int c = 0; c < FAULT_COUNT; c++)
        all += value_of(&m->requests[l][p][c]);
    for (int c = 0; c < FAULT_COUNT && all > 0; c++) {
        uint64_t n = value_of(&m->requests[l][p][c]);
        if (n == 0 && (!shown_as_zero(c) || p == PROTOCOL_NONE))
            continue;
        buf_printf(
            b, "muster_requests_total{listener=\"%s\",protocol=\"%s\",outcome=\"%s\"} %llu\n",
            metrics_listener_name((enum metrics_listener)l),
            metrics_protocol_name((enum metrics_protocol)p),
            c == FAULT_NONE ? "ok" : fault_row((enum fault_code)c)->code, (unsigned long long)n);
    }
}

static void requests_write(const struct metrics *m, struct buf *b)
{
    metrics_head(b, "muster_requests_total", "counter",
                 "Requests answered, by outcome: ok or the code of the refusal");
    for (int l = 0; l < METRICS_LISTENER_COUNT; l++) {
        for (int p = 0; p < PROTOCOL_COUNT; p++)
            requests_of_write(m, l, p, b);
    }
    metrics_head(b, "muster_request_seconds", "histogram", "Time from headers to answer");
    for (int p = 0; p < PROTOCOL_COUNT; p++)
        metrics_histogram(b, "muster_request_seconds", "protocol",
                          metrics_protocol_name((enum metrics_protocol)p), &m->durations[p]);
}

static void connections_write(const struct metrics *m, struct buf *b)
{
    uint64_t closed[METRICS_SOCKETS];
    metrics_head(b, "muster_connections_open", "gauge", "Connections open now");
    for (int l = 0; l < METRICS_SOCKETS; l++) {
        closed[l] = value_of(&m->closed[l]); /* first: never more closed than opened */
        metrics_value(b, "muster_connections_open", "listener",
                      metrics_listener_name((enum metrics_listener)l),
                      (double)(value_of(&m->opened[l]) - closed[l]));
    }
    metrics_head(b, "muster_connections_total", "counter", "Connections accepted");
    for (int l = 0; l < METRICS_SOCKETS; l++)
        metrics_value(b, "muster_connections_total", "listener",
                      metrics_listener_name((enum metrics_listener)l),
                      (double)value_of(&m->opened[l]));
}

static void reloads_write(const struct metrics *m, struct buf *b)
{
    metrics_head(b, "muster_config_reloads_total", "counter",
                 "SIGHUPs, by whether they were taken");
    metrics_value(b, "muster_config_reloads_total", "result", "ok",
                  (double)value_of(&m->reloads[true]));
    metrics_value(b, "muster_config_reloads_total", "result", "refused",
                  (double)value_of(&m->reloads[false]));
    metrics_head(b, "muster_config_last_reload_successful", "gauge",
                 "Whether what runs is what the files say; 1 before the first SIGHUP");
    metrics_value(b, "muster_config_last_reload_successful", NULL, NULL,
                  atomic_load_explicit(&m->last_reload_taken, memory_order_relaxed));
}

static void unasked_write(const struct metrics *m, struct buf *b)
{
    metrics_head(b, "muster_connections_without_request_total", "counter",
                 "Connections that ended before a request");
    for (int l = 0; l < METRICS_SOCKETS; l++)
        metrics_value(b, "muster_connections_without_request_total", "listener",
                      metrics_listener_name((enum metrics_listener)l),
                      (double)value_of(&m->unasked[l]));
}

/* Without a value where no broker is configured. */
static void mqtt_gauge_write(const struct metrics_mqtt *q, struct buf *b, const char *name,
                             const char *help, double number)
{
    metrics_head(b, name, "gauge", help);
    if (atomic_load(&q->used))
        metrics_value(b, name, NULL, NULL, number);
}

static void answers_write(const struct metrics_mqtt *q, struct buf *b)
{
    static const char *const results[] = {
        [ANSWER_ACCEPTED] = "accepted", [ANSWER_REJECTED] = "rejected",   [ANSWER_LOST] = "lost",
        [ANSWER_LATE] = "late",         [ANSWER_MALFORMED] = "malformed",
    };
    metrics_head(b, "muster_mqtt_answers_total", "counter", "Requests by MQTT, by how they ended");
    for (int i = 0; i < METRICS_ANSWER_COUNT && atomic_load(&q->used); i++)
        metrics_value(b, "muster_mqtt_answers_total", "result", results[i],
                      (double)value_of(&q->answers[i]));
}

static void mqtt_write(const struct metrics_mqtt *q, struct buf *b)
{
    int64_t age_us = clock_mono_us() - atomic_load(&q->gate_even_us);
    mqtt_gauge_write(q, b, "muster_mqtt_connected", "Whether the broker is there",
                     atomic_load(&q->connected));
    mqtt_gauge_write(q, b, "muster_mqtt_queue_length", "Requests by MQTT that wait for a worker",
                     atomic_load(&q->queued));
    answers_write(q, b);
    mqtt_gauge_write(q, b, "muster_gate_ready", "Whether the broker's table is complete",
                     atomic_load(&q->gate_ready));
    mqtt_gauge_write(q, b, "muster_gate_entries", "Certificates in the broker's table",
                     (double)atomic_load(&q->gate_entries));
    mqtt_gauge_write(q, b, "muster_gate_behind_seconds",
                     "Since the broker's table was as the registry has it; 0 within a second",
                     age_us < EVEN_US ? 0 : (double)age_us / 1e6);
}

struct metrics_mqtt *metrics_mqtt(struct metrics *m)
{
    return &m->mqtt;
}

void metrics_write(const struct metrics *m, struct buf *b)
{
    requests_write(m, b);
    unasked_write(m, b);
    connections_write(m, b);
    metrics_head(b, "muster_step_seconds", "histogram",
                 "Time of the steps of an enrolment; record is the database");
    for (int i = 0; i < METRICS_MAX_STEPS; i++) {
        const char *name = atomic_load_explicit(&m->step_names[i], memory_order_relaxed);
        if (name)
            metrics_histogram(b, "muster_step_seconds", "step", name, &m->steps[i]);
    }
    mqtt_write(&m->mqtt, b);
    reloads_write(m, b);
    metrics_head(b, "process_start_time_seconds", "gauge", "Start of the process, since 1970");
    metrics_value(b, "process_start_time_seconds", NULL, NULL, m->started_s);
}
