#include "mqtt/requests.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/gate.h"
#include "base/json_out.h"
#include "base/log.h"
#include "enroll/admit.h"
#include "enroll/metrics.h"
#include "enroll/service.h"
#include "model/broker_wire.h"
#include "proto/fleet/fleet.h"

enum { GIVEN_UP_US = 10000000 /* a request that waited so long has no device that waits for it */ };

/* A queue and its threads. */
struct crew {
    struct requests *requests;
    struct work_queue *queue;
    pthread_t *threads;
    unsigned thread_count;
    bool refusing; /* tells everybody 503 */
};

struct requests {
    struct service *service;
    struct mqtt_client *client;
    struct metrics_mqtt *cells;
    struct crew working;
    struct crew refusing; /* for what found the other's queue full */
    atomic_bool dropping;
};

static void answer_count(struct requests *r, enum metrics_answer answer)
{
    atomic_fetch_add_explicit(&r->cells->answers[answer], 1, memory_order_relaxed);
}

static void log_who(struct buf *b, const struct fleet_reply *reply)
{
    if (reply->credential)
        json_text(b, "credential", reply->credential);
    if (reply->template)
        json_text(b, "template", reply->template);
    if (reply->serial)
        json_text(b, "serial", reply->serial);
}

/* As of a request by HTTPS, as far as it goes. */
static void log_request(const struct mqtt_job *j, const struct fleet_reply *reply, bool delivered)
{
    enum log_level level = reply->status >= 500 ? LOG_ERROR : LOG_INFO;
    enum fault_code told = fault_public(reply->fault.code, false);
    struct buf b;
    log_begin(&b, level, "request");
    json_text(&b, "request_id", j->request_id);
    json_text(&b, "listener", metrics_listener_name(METRICS_MQTT));
    json_text(&b, "protocol", "mqtt");
    json_text(&b, "source", j->source);
    json_text(&b, "client_id", j->client);
    json_text(&b, "path", j->topic);
    json_int(&b, "status", reply->status);
    json_text(&b, "outcome", fault_row(reply->fault.code)->code);
    if (reply->fault.code != FAULT_NONE)
        json_text(&b, "detail", reply->fault.detail);
    if (told != reply->fault.code)
        json_text(&b, "told", fault_row(told)->code);
    log_who(&b, reply);
    json_int(&b, "bytes_in", (int64_t)j->payload.len);
    json_int(&b, "bytes_out", (int64_t)reply->payload.len);
    if (!delivered)
        json_bool(&b, "delivered", false);
    json_int(&b, "us", clock_mono_us() - j->arrived_us);
    log_end(&b, level);
}

static enum err answer_send(struct requests *r, struct mqtt_job *j, const struct fleet_reply *reply)
{
    const char *topic =
        arena_printf(&j->arena, "%s/%s", j->topic, reply->accepted ? "accepted" : "rejected");
    const struct mqtt_property properties[] = {
        {WIRE_OPERATION, WIRE_OP_ANSWER},
        {WIRE_CLIENT, j->client},
        {WIRE_CONNECTION, j->connection},
        {WIRE_TOPIC, topic},
    };
    if (!topic)
        return ERR_NO_MEMORY;
    return mqtt_client_send(r->client, WIRE_CONTROL_TOPIC, properties, ARRAY_LEN(properties),
                            reply->payload);
}

static void request_end(struct requests *r, struct mqtt_job *j, const struct fleet_reply *reply,
                        enum metrics_answer answer)
{
    bool delivered = answer != ANSWER_LATE && !answer_send(r, j, reply);
    if (!delivered && answer != ANSWER_LATE)
        answer = ANSWER_LOST;
    answer_count(r, answer);
    metrics_request(r->service->metrics, METRICS_MQTT, PROTOCOL_FLEET, reply->fault.code,
                    clock_mono_us() - j->arrived_us);
    log_request(j, reply, delivered);
}

static void request_run(struct requests *r, const struct fleet_operation *op, struct mqtt_job *j,
                        struct fleet_reply *reply)
{
    const struct fleet_call call = {
        .arena = &j->arena,
        .request_id = j->request_id,
        .since_us = j->arrived_us,
        .transport = "mqtt",
        .source = j->source,
        .client_id = j->client,
        .gate = r->service->device_gate,
        .claim = bytes_of(j->fingerprint, SHA256_BYTES),
        .payload = j->payload,
    };
    fleet_run(r->service, op, &call, reply);
}

static void request_refuse(const struct fleet_operation *op, struct mqtt_job *j, const char *why,
                           struct fleet_reply *reply)
{
    struct fault fault = {0};
    (void)fault_set(&fault, FAULT_OVERLOADED, "%s", why);
    fleet_refuse(op, j->request_id, &j->arena, &fault, reply);
}

static void request_handle(const struct crew *crew, struct mqtt_job *j)
{
    struct requests *r = crew->requests;
    struct fleet_operation op;
    struct fleet_reply reply;
    enum metrics_answer answer = ANSWER_REJECTED;
    if (fleet_topic_parse(j->topic, &op)) {
        answer_count(r, ANSWER_MALFORMED);
        return;
    }
    if (clock_mono_us() - j->arrived_us > GIVEN_UP_US) {
        answer = ANSWER_LATE;
        request_refuse(&op, j, "the device gave up before a worker was free", &reply);
    } else if (crew->refusing) {
        request_refuse(&op, j, "the queue is full", &reply);
    } else if (gate_enter(r->service->device_gate, atomic_load(&r->service->queue_timeout_ms))) {
        request_refuse(&op, j, "the queue is full or too slow", &reply);
    } else {
        request_run(r, &op, j, &reply);
        gate_leave(r->service->device_gate);
        answer = reply.accepted ? ANSWER_ACCEPTED : ANSWER_REJECTED;
    }
    request_end(r, j, &reply, answer);
}

/* The plugin has refused a certificate that it does not know, and handed it over. It gets in with
 * its next try, when the table has it. */
static void unknown_admit(struct service *service, struct mqtt_job *j)
{
    const struct admit_contact contact = {.request_id = j->request_id,
                                          .since_us = j->arrived_us,
                                          .source = j->source,
                                          .client_id = j->client,
                                          .leaf = j->payload};
    admit_unknown(service, &contact, &j->arena);
}

static void job_run(const struct crew *crew, struct mqtt_job *j)
{
    struct requests *r = crew->requests;
    if (atomic_load(&r->dropping))
        return;
    switch (j->kind) {
    case JOB_REQUEST:
        request_handle(crew, j);
        break;
    case JOB_DENIED:
        mqtt_denied_record(r->service, j);
        break;
    case JOB_SEEN:
        mqtt_seen_record(r->service, j);
        break;
    case JOB_UNKNOWN:
        unknown_admit(r->service, j);
        break;
    }
}

static struct mqtt_job *job_of(struct work_item *item)
{
    return (struct mqtt_job *)((char *)item - offsetof(struct mqtt_job, item));
}

static void *crew_run(void *arg)
{
    struct crew *crew = arg;
    struct work_item *item;
    while ((item = work_queue_pop(crew->queue))) {
        struct mqtt_job *j = job_of(item);
        if (!crew->refusing)
            atomic_fetch_sub(&crew->requests->cells->queued, 1);
        job_run(crew, j);
        work_queue_done(crew->queue, item);
        mqtt_job_free(j);
    }
    return NULL;
}

/* What is no request and finds the queue full is left: it is sampled, or told again. */
static void push(struct requests *r, struct mqtt_job *j)
{
    atomic_fetch_add(&r->cells->queued, 1);
    if (!work_queue_push(r->working.queue, &j->item))
        return;
    atomic_fetch_sub(&r->cells->queued, 1);
    if (j->kind == JOB_REQUEST && !work_queue_push(r->refusing.queue, &j->item))
        return;
    if (j->kind == JOB_REQUEST)
        answer_count(r, ANSWER_LOST);
    mqtt_job_free(j);
}

void requests_take(struct requests *r, enum mqtt_job_kind kind, const struct mqtt_message *m)
{
    struct mqtt_job *j = NULL;
    enum err e = mqtt_job_new(kind, m, &j);
    if (!e)
        push(r, j);
    else if (kind == JOB_REQUEST)
        answer_count(r, e == ERR_INVALID ? ANSWER_MALFORMED : ANSWER_LOST);
}

unsigned requests_active(struct requests *r)
{
    return work_queue_active(r->working.queue) + work_queue_active(r->refusing.queue);
}

static enum err crew_make(struct requests *r, struct crew *crew, unsigned threads,
                          unsigned max_queued)
{
    crew->requests = r;
    enum err e = work_queue_new(max_queued, threads / 2, &crew->queue);
    if (e)
        return e;
    crew->threads = calloc(threads, sizeof(*crew->threads));
    if (!crew->threads)
        return ERR_NO_MEMORY;
    for (; crew->thread_count < threads; crew->thread_count++) {
        if (pthread_create(&crew->threads[crew->thread_count], NULL, crew_run, crew) != 0)
            return ERR_SYSTEM;
    }
    return ERR_OK;
}

static void crew_done(struct crew *crew)
{
    if (!crew->queue)
        return;
    work_queue_close(crew->queue);
    for (unsigned i = 0; i < crew->thread_count; i++)
        pthread_join(crew->threads[i], NULL);
    free(crew->threads);
    work_queue_free(crew->queue);
}

enum err requests_new(const struct requests_config *config, struct service *service,
                      struct mqtt_client *client, struct requests **ret_requests)
{
    struct requests *r = calloc(1, sizeof(*r));
    if (!r)
        return ERR_NO_MEMORY;
    r->service = service;
    r->client = client;
    r->cells = metrics_mqtt(service->metrics);
    r->refusing.refusing = true;
    enum err e = crew_make(r, &r->working, config->workers, config->max_queued);
    if (!e)
        e = crew_make(r, &r->refusing, 1, config->max_queued);
    if (e)
        requests_free(r);
    else
        *ret_requests = r;
    return e;
}

void requests_free(struct requests *r)
{
    if (!r)
        return;
    atomic_store(&r->dropping, true);
    crew_done(&r->working);
    crew_done(&r->refusing);
    free(r);
}
