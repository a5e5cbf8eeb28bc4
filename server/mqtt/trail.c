#include "base/buf.h"
#include "base/clock.h"
#include "base/json_out.h"
#include "base/limit.h"
#include "base/log.h"
#include "base/text.h"
#include "enroll/claims.h"
#include "enroll/service.h"
#include "model/fault.h"
#include "mqtt/job.h"
#include "store/enrol.h"

enum { MAX_DENIED_BYTES = 8192 };

static void denied_write(struct service *service, struct mqtt_job *job, struct buf *b)
{
    struct claim_row claim;
    struct bytes fingerprint = bytes_of(job->fingerprint, SHA256_BYTES);
    json_begin_object(b);
    json_text(b, "request_id", job->request_id);
    json_text(b, "protocol", "mqtt");
    json_text(b, "operation", job->action);
    json_text(b, "credential", "claim");
    json_text(b, "source", job->source);
    json_text(b, "outcome", fault_row(FAULT_CLAIM_TOPIC)->code);
    json_text(b, "detail", job->topic);
    json_bool(b, "counts", false);
    json_bool(b, "proven", false);
    json_raw(b, "fingerprint",
             arena_printf(&job->arena, "\"\\\\x%s\"", text_hex(&job->arena, fingerprint)));
    if (!claims_find(service->claims, fingerprint, &job->arena, &claim)) {
        json_int(b, "claim_id", claim.id);
        json_text(b, "claim", claim.name);
    }
    json_end_object(b);
}

void mqtt_denied_record(struct service *service, struct mqtt_job *job)
{
    if (!source_limit_take(service->trail_limit, job->source, clock_mono_us()))
        return;
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_DENIED_BYTES);
    denied_write(service, job, &b);
    enum err e = b.overflow ? ERR_INVALID : enrol_failed(service->db, buf_text(&b));
    if (e)
        log_text(LOG_ERROR, "trail.not_written", "request_id", job->request_id);
}

/* What is not recorded is told again with the device's next connection. */
void mqtt_seen_record(struct service *service, struct mqtt_job *job)
{
    struct enrol_seen seen;
    enum err e = enrol_seen_record(service->db, bytes_of(job->fingerprint, SHA256_BYTES), "broker",
                                   job->request_id, job->source, &job->arena, &seen);
    if (e)
        log_text(LOG_ERROR, "mqtt.seen_not_recorded", "request_id", job->request_id);
}
