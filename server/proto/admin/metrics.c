/* GET /metrics: what this process counted, and what the registry knows. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/gate.h"
#include "base/process.h"
#include "base/secret.h"
#include "enroll/catalog.h"
#include "enroll/hooks.h"
#include "enroll/journal.h"
#include "enroll/limits.h"
#include "enroll/metrics.h"
#include "enroll/service.h"
#include "proto/admin/hooks.h"
#include "store/commit.h"
#include "store/gauges.h"

enum { MAX_METRICS_BYTES = 1 << 20 };

static void gauge(struct buf *b, const char *name, const char *help, double number)
{
    metrics_head(b, name, "gauge", help);
    metrics_value(b, name, NULL, NULL, number);
}

static void counter(struct buf *b, const char *name, const char *help, double number)
{
    metrics_head(b, name, "counter", help);
    metrics_value(b, name, NULL, NULL, number);
}

/* One gauge of every gate; the proxy listener goes through the device listener's. */
enum { GATE_COUNT = METRICS_ADMIN + 1 };

static void gate_write(struct buf *b, const char *name, const char *help,
                       const unsigned numbers[GATE_COUNT])
{
    metrics_head(b, name, "gauge", help);
    for (int i = 0; i < GATE_COUNT; i++)
        metrics_value(b, name, "listener", metrics_listener_name((enum metrics_listener)i),
                      numbers[i]);
}

static void gates_write(struct service *service, struct buf *b)
{
    struct gate *const gates[] = {
        [METRICS_DEVICE] = service->device_gate, [METRICS_ADMIN] = service->admin_gate};
    struct gate_state states[GATE_COUNT];
    unsigned numbers[4][GATE_COUNT];
    for (int i = 0; i < GATE_COUNT; i++) {
        gate_look(gates[i], &states[i]);
        numbers[0][i] = states[i].inside;
        numbers[1][i] = states[i].waiting;
        numbers[2][i] = states[i].max_inside;
        numbers[3][i] = states[i].max_waiting;
    }
    gate_write(b, "muster_gate_inside", "Requests worked on", numbers[0]);
    gate_write(b, "muster_gate_waiting", "Requests that wait to be worked on", numbers[1]);
    gate_write(b, "muster_gate_max_inside", "How many are worked on at most", numbers[2]);
    gate_write(b, "muster_gate_max_waiting", "How many wait at most", numbers[3]);
    gauge(b, "muster_connections_unasked", "Connections open that have not asked for anything yet",
          atomic_load(&service->coming));
}

static void database_write(struct service *service, struct buf *b)
{
    const struct db_stats *stats = db_stats(service->db);
    gauge(b, "muster_database_connections_busy", "Connections of the pool in use",
          db_busy(service->db));
    gauge(b, "muster_database_connections_max", "Connections the pool may have",
          db_size(service->db));
    counter(b, "muster_database_connect_failures_total", "Attempts to connect that failed",
            (double)atomic_load_explicit(&stats->connect_failures, memory_order_relaxed));
    metrics_head(b, "muster_database_wait_seconds", "histogram",
                 "Time spent waiting for a connection of the pool");
    metrics_histogram(b, "muster_database_wait_seconds", NULL, NULL, &stats->wait);
    metrics_head(b, "muster_database_statement_seconds", "histogram",
                 "Time from sending a statement to its result");
    for (int i = 0; i < DB_KIND_COUNT; i++)
        metrics_histogram(b, "muster_database_statement_seconds", "kind",
                          db_kind_name((enum db_kind)i), &stats->statements[i]);
    metrics_head(b, "muster_commit_batch_size", "histogram", "Enrolments that shared a commit");
    metrics_histogram(b, "muster_commit_batch_size", NULL, NULL,
                      committer_batches(service->committer));
}

static void catalog_write(struct service *service, struct buf *b)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    int64_t epoch = 0, age_us = 0;
    (void)!catalog_get(service->catalog, &snapshot); /* or an idle server's would look old */
    catalog_look(service->catalog, &epoch, &age_us);
    gauge(b, "muster_catalog_epoch", "Version of the templates and CAs in use", (double)epoch);
    gauge(b, "muster_catalog_age_seconds", "Since the registry last confirmed that version",
          (double)age_us / 1e6);
    gauge(b, "muster_clock_ahead_seconds", "This machine's clock against the registry's",
          catalog_clock_ahead_s(service->catalog));
}

static void process_write(struct buf *b)
{
    struct process_facts p = process_look();
    metrics_head(b, "muster_build_info", "gauge", "The version that runs");
    metrics_value(b, "muster_build_info", "version", MUSTER_VERSION, 1);
    counter(b, "process_cpu_seconds_total", "User and system time", p.cpu_s);
    gauge(b, "process_resident_memory_bytes", "Resident memory", (double)p.resident_bytes);
    gauge(b, "process_open_fds", "Open file descriptors", (double)p.open_fds);
    gauge(b, "process_max_fds", "How many there may be", (double)p.max_fds);
}

static const struct {
    const char *member;
    const char *name;
    const char *label; /* NULL: one number */
    const char *help;
} gauges[] = {
    {"devices", "muster_devices", "state", "Devices by state"},
    {"certificates", "muster_certificates", "expires", "Live certificates by when they end"},
    {"issuer_not_after", "muster_issuer_not_after_timestamp_seconds", "issuer",
     "When an issuing CA ends, since 1970"},
    {"crl_next_update", "muster_crl_next_update_timestamp_seconds", "issuer",
     "When the first of an issuer's CRLs is overdue, since 1970"},
    {"unknown_issuers", "muster_unknown_issuers", NULL,
     "Issuers of client certificates that nobody registered"},
    {"verify_overdue", "muster_devices_verify_overdue", NULL, "Devices whose first use is overdue"},
    {"claims", "muster_claims", "state", "Claims by state"},
    {"claims_expiring", "muster_claims_expiring", "within",
     "Claims without successor whose enrolment ends within that time"},
    {"claim_budget_used", "muster_claim_budget_used_ratio", NULL,
     "The fullest budget of the claims in use that have no successor"},
    {"claim_certificates_pending", "muster_claim_certificates_pending", NULL,
     "Certificates made for claims that wait for their registration"},
    {"devices_stuck", "muster_devices_stuck", "state",
     "Devices that stand in a state for longer than its limit"},
    {"jit_certificates", "muster_jit_certificates", "status",
     "Certificates of registered CAs that belong to no device"},
    {"events_behind", "muster_events_behind_seconds", "receiver",
     "How old the oldest event is that a receiver has not taken over"},
    {"events_dead", "muster_events_dead", "receiver", "Events that were given up"},
    {"quarantine_spared", "muster_quarantine_spared", NULL,
     "Devices that a quarantine storm spared within the last hour"},
};

static void registry_write(const json_t *values, struct buf *b)
{
    for (size_t i = 0; i < ARRAY_LEN(gauges); i++) {
        const char *key;
        json_t *number;
        metrics_head(b, gauges[i].name, "gauge", gauges[i].help);
        json_object_foreach(json_object_get(values, gauges[i].member), key, number)
            metrics_value(b, gauges[i].name, gauges[i].label, key, json_number_value(number));
    }
}

/* Whoever came with the scrape token is told of the process even while the registry is away. */
static enum err registry_add(struct service *service, struct exchange *x, struct buf *b)
{
    const struct admin_session *s = x->adapter;
    const char *json = NULL;
    enum err e = gauges_load(service->db, x->arena, &json);
    if (e && !s->scrape)
        return admin_refused(x, e, "the registry's gauges");
    gauge(b, "muster_database_up", "Whether PostgreSQL answered this scrape", !e);
    if (e)
        return ERR_OK;
    _cleanup_(json_decrefp) json_t *values = json_loads(json, 0, NULL);
    registry_write(values, b);
    return ERR_OK;
}

enum err metrics_handle(struct service *service, struct exchange *x)
{
    const struct admin_session *s = x->adapter;
    _cleanup_(buf_donep) struct buf b = {0};
    if (s->op.product_id != 0)
        return fault_set(&x->fault, FAULT_ADMIN_FORBIDDEN, "the token is for one product only");
    buf_init(&b, MAX_METRICS_BYTES);
    metrics_write(service->metrics, &b);
    journal_metrics(service->journal, &b);
    gates_write(service, &b);
    limits_write(service->limits, &b);
    hooks_write(service->hooks, &b);
    catalog_write(service, &b);
    enum err e = registry_add(service, x, &b);
    if (e)
        return e;
    database_write(service, &b);
    process_write(&b);
    const char *text = b.overflow ? NULL : arena_strdup(x->arena, buf_text(&b));
    if (!text)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    exchange_reply(x, 200, "text/plain; version=0.0.4", bytes_text(text));
    return ERR_OK;
}

bool metrics_scraper(const struct service *service, const struct exchange *x)
{
    const char *header = exchange_header(x, "Authorization");
    uint8_t hash[SHA256_BYTES];
    if (x->route->handle != metrics_handle || !service->scrape_token_set || !header ||
        strncasecmp(header, "Bearer ", 7) != 0 || digest_sha256(bytes_text(header + 7), hash))
        return false;
    return secret_equal(hash, service->scrape_token, sizeof(hash));
}
