/* Just-in-time provisioning at the broker: the plugin has refused a certificate that it does not
 * know, and handed it over. It gets in with its next try, when the table has it. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/gate.h"
#include "base/json_out.h"
#include "base/log.h"
#include "enroll/metrics.h"
#include "enroll/pipeline.h"
#include "enroll/service.h"
#include "mqtt/job.h"

static void log_contact(const struct mqtt_job *j, const struct enrollment_report *report,
                        const struct fault *fault)
{
    struct buf b;
    log_begin(&b, LOG_INFO, "jit");
    json_text(&b, "request_id", j->request_id);
    json_text(&b, "source", j->source);
    json_text(&b, "client", j->client);
    if (report->serial)
        json_text(&b, "serial", report->serial);
    if (report->template)
        json_text(&b, "template", report->template);
    if (fault->code != FAULT_NONE) {
        json_text(&b, "code", fault_row(fault->code)->code);
        json_text(&b, "detail", fault->detail);
    }
    json_int(&b, "us", clock_mono_us() - j->arrived_us);
    log_end(&b, LOG_INFO);
}

/* The leaf alone: intermediates must be registered as helpers, for Mosquitto shows no others. */
static void contact(struct service *service, struct mqtt_job *job)
{
    const struct enrollment_request rq = {
        .flow = FLOW_ADMIT,
        .request_id = job->request_id,
        .since_us = job->arrived_us,
        .protocol = "mqtt",
        .operation = "jitp",
        .source = job->source,
        .client_id = job->client,
        .chain = {job->payload},
        .chain_count = 1,
        .gate = service->device_gate,
    };
    struct enrollment_result result;
    struct enrollment_report report;
    struct fault fault = {0};
    enum err e = pipeline_run(service, &rq, &job->arena, &result, &report, &fault);
    if (e || !result.replayed)
        log_contact(job, &report, &fault);
    metrics_request(service->metrics, METRICS_MQTT, PROTOCOL_JIT, fault.code,
                    clock_mono_us() - job->arrived_us);
}

/* A device that finds no room tries again, and so is told again. */
void mqtt_unknown_admit(struct service *service, struct mqtt_job *job)
{
    if (job->payload.len == 0 ||
        gate_enter(service->device_gate, atomic_load(&service->queue_timeout_ms)))
        return;
    contact(service, job);
    gate_leave(service->device_gate);
}
