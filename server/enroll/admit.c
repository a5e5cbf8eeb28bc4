#include "enroll/admit.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/gate.h"
#include "base/json_out.h"
#include "base/log.h"
#include "enroll/metrics.h"
#include "enroll/pipeline.h"
#include "enroll/service.h"

static void log_contact(const struct admit_contact *c, const struct enrollment_report *report,
                        const struct fault *fault)
{
    struct buf b;
    log_begin(&b, LOG_INFO, "jit");
    json_text(&b, "request_id", c->request_id);
    json_text(&b, "source", c->source);
    json_text(&b, "client", c->client_id);
    if (report->serial)
        json_text(&b, "serial", report->serial);
    if (report->template)
        json_text(&b, "template", report->template);
    if (fault->code != FAULT_NONE) {
        json_text(&b, "code", fault_row(fault->code)->code);
        json_text(&b, "detail", fault->detail);
    }
    json_int(&b, "us", clock_mono_us() - c->since_us);
    log_end(&b, LOG_INFO);
}

/* The leaf alone: intermediates must be registered as helpers, for brokers show no others. */
static void admit(struct service *service, const struct admit_contact *c, struct arena *arena)
{
    const struct enrollment_request rq = {
        .flow = FLOW_ADMIT,
        .request_id = c->request_id,
        .since_us = c->since_us,
        .protocol = "mqtt",
        .operation = "jitp",
        .source = c->source,
        .client_id = c->client_id,
        .chain = {c->leaf},
        .chain_count = 1,
        .gate = service->device_gate,
    };
    struct enrollment_result result;
    struct enrollment_report report;
    struct fault fault = {0};
    enum err e = pipeline_run(service, &rq, arena, &result, &report, &fault);
    if (e || !result.replayed)
        log_contact(c, &report, &fault);
    metrics_request(service->metrics, METRICS_MQTT, PROTOCOL_JIT, fault.code,
                    clock_mono_us() - c->since_us);
}

void admit_unknown(struct service *service, const struct admit_contact *c, struct arena *arena)
{
    if (c->leaf.len == 0 ||
        gate_enter(service->device_gate, atomic_load(&service->queue_timeout_ms)))
        return;
    admit(service, c, arena);
    gate_leave(service->device_gate);
}
