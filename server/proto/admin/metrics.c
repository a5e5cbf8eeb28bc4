/* GET /metrics: what this process counted, and what the registry knows. */
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/gate.h"
#include "enroll/limits.h"
#include "enroll/metrics.h"
#include "enroll/service.h"
#include "proto/admin/hooks.h"

enum { MAX_METRICS_BYTES = 1 << 20 };

static void head(struct buf *b, const char *name, const char *help)
{
    buf_printf(b, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name);
}

static void process_write(struct service *service, struct buf *b)
{
    struct gate *const gates[] = {service->device_gate, service->admin_gate};
    static const char *const names[] = {"device", "admin"};
    unsigned inside[ARRAY_LEN(gates)], waiting[ARRAY_LEN(gates)];
    head(b, "muster_gate_inside", "Requests worked on");
    for (size_t i = 0; i < ARRAY_LEN(gates); i++) {
        gate_look(gates[i], &inside[i], &waiting[i]);
        metrics_gauge(b, "muster_gate_inside", "listener", names[i], inside[i]);
    }
    head(b, "muster_gate_waiting", "Requests that wait to be worked on");
    for (size_t i = 0; i < ARRAY_LEN(gates); i++)
        metrics_gauge(b, "muster_gate_waiting", "listener", names[i], waiting[i]);
    limits_write(service->limits, b);
    head(b, "muster_database_connections_busy", "Connections of the pool in use");
    metrics_gauge(b, "muster_database_connections_busy", NULL, NULL, db_busy(service->db));
    head(b, "muster_build_info", "The version that runs");
    metrics_gauge(b, "muster_build_info", "version", MUSTER_VERSION, 1);
}

static const struct {
    const char *member;
    const char *name;
    const char *label; /* NULL: one number */
    const char *help;
} gauges[] = {
    {"devices", "muster_devices", "state", "Devices by state"},
    {"certificates_expiring", "muster_certificates_expiring", "within",
     "Live certificates that end within"},
    {"issuer_days_left", "muster_issuer_days_left", "issuer", "Days until an issuing CA ends"},
    {"unknown_issuers", "muster_unknown_issuers", NULL,
     "Issuers of client certificates that nobody registered"},
    {"verify_overdue", "muster_devices_verify_overdue", NULL, "Devices whose first use is overdue"},
};

static void registry_write(const json_t *values, struct buf *b)
{
    for (size_t i = 0; i < ARRAY_LEN(gauges); i++) {
        const char *key;
        json_t *number;
        head(b, gauges[i].name, gauges[i].help);
        json_object_foreach(json_object_get(values, gauges[i].member), key, number) metrics_gauge(
            b, gauges[i].name, gauges[i].label, key, (int64_t)json_number_value(number));
    }
}

enum err metrics_handle(struct service *service, struct exchange *x)
{
    const struct admin_session *s = x->adapter;
    struct desk_answer answer = {0};
    char message[DB_MAX_MESSAGE_BYTES] = "";
    _cleanup_(buf_donep) struct buf b = {0};
    enum err e = desk_call(service->db, DESK_GAUGES, s->json, "{}", x->arena, &answer, message);
    if (e)
        return admin_refused(x, e, message);
    _cleanup_(json_decrefp) json_t *values = json_loads(answer.json, 0, NULL);
    buf_init(&b, MAX_METRICS_BYTES);
    metrics_write(service->metrics, &b);
    process_write(service, &b);
    registry_write(values, &b);
    const char *text = b.overflow ? NULL : arena_strdup(x->arena, buf_text(&b));
    if (!text)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    exchange_reply(x, 200, "text/plain; version=0.0.4", bytes_text(text));
    return ERR_OK;
}
