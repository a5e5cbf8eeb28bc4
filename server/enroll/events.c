#include "enroll/events.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/json_out.h"
#include "base/log.h"
#include "base/secret.h"
#include "enroll/event_message.h"
#include "enroll/hook_internal.h"
#include "store/event.h"

enum {
    TICK_MS = 250,
    HOOK_TIMEOUT_MS = 5000,
    BATCH_US = 10000000, /* well within the half minute that a sink is ours */
    ARENA_BYTES = 64 << 20,
    MAX_RESULTS_BYTES = 32 << 20,
    MAX_ROUNDS = 20, /* batches of one sink before another has its turn */
    MAX_WHY_BYTES = 160,
    HTTP_OK = 200,
    HTTP_END_OF_OK = 300,
    HTTP_TOO_MANY = 429,
    HTTP_BAD_GATEWAY = 502,
    HTTP_GATEWAY_TIMEOUT = 504,
};

struct events {
    struct db *db;
    struct buf secret;
    enum err (*publish)(void *ctx, const char *topic, struct bytes payload);
    void *ctx;
    struct hook_caller *caller;
    bool http;              /* libcurl's global state was begun */
    char me[ID_TEXT_BYTES]; /* this replica */
    pthread_t thread;
    pthread_mutex_t lock; /* guards stop */
    pthread_cond_t wake;
    bool stop;
};

enum delivery { DELIVERED, REFUSED, AWAY };

/* One batch under way. */
struct round {
    struct arena arena;
    const struct event_sink *sink;
    struct event_row *rows;
    size_t count;
    struct buf results;
    const char *failed[EVENT_MAX_BATCH]; /* keys */
    size_t failed_count;
    int64_t to_xid, to_id;
    char why[MAX_WHY_BYTES];
    bool away;
};

static bool stopping(struct events *e)
{
    pthread_mutex_lock(&e->lock);
    bool stop = e->stop;
    pthread_mutex_unlock(&e->lock);
    return stop;
}

/* Delivering. */

/* That nobody answers says nothing of the event; what a receiver says of one is about that one. */
static enum delivery reply_judge(const struct hook_reply *reply, char why[MAX_WHY_BYTES])
{
    if (reply->why) {
        snprintf(why, MAX_WHY_BYTES, "%s", reply->why);
        return AWAY;
    }
    if (reply->status >= HTTP_OK && reply->status < HTTP_END_OF_OK)
        return DELIVERED;
    snprintf(why, MAX_WHY_BYTES, "status %ld", reply->status);
    bool gateway = reply->status >= HTTP_BAD_GATEWAY && reply->status <= HTTP_GATEWAY_TIMEOUT;
    return gateway || reply->status == HTTP_TOO_MANY ? AWAY : REFUSED;
}

static enum delivery webhook_deliver(struct events *e, struct round *r, const struct event_row *row)
{
    char signature[HOOK_SIGNATURE_BYTES];
    struct bytes body = bytes_text(row->event);
    if (!e->caller || hook_sign(buf_bytes(&e->secret), clock_wall_s(), body, signature)) {
        snprintf(r->why, sizeof(r->why), "no hook secret is configured");
        return AWAY;
    }
    struct hook_reply reply;
    const struct hook_call call = {.url = r->sink->url,
                                   .request_id = row->name,
                                   .signature = signature,
                                   .body = body,
                                   .timeout_ms = HOOK_TIMEOUT_MS};
    hook_reply_init(&reply);
    hook_call(e->caller, &call, &reply);
    enum delivery d = reply_judge(&reply, r->why);
    hook_reply_done(&reply);
    return d;
}

static enum delivery broker_deliver(struct events *e, struct round *r, const struct event_row *row)
{
    struct event_message messages[EVENT_MAX_MESSAGES];
    size_t count = event_messages(&r->arena, row->event, messages);
    if (count == 0) {
        snprintf(r->why, sizeof(r->why), "the event cannot be read");
        return REFUSED;
    }
    for (size_t i = 0; i < count; i++) {
        if (e->publish(e->ctx, messages[i].topic, bytes_text(messages[i].payload))) {
            snprintf(r->why, sizeof(r->why), "the broker is away");
            return AWAY;
        }
    }
    return DELIVERED;
}

static bool key_failed(const struct round *r, const char *key)
{
    for (size_t i = 0; i < r->failed_count; i++) {
        if (strcmp(r->failed[i], key) == 0)
            return true;
    }
    return false;
}

static void result_add(struct round *r, const struct event_row *row, const char *result)
{
    json_begin_object(&r->results);
    json_raw(&r->results, "retry", row->retry);
    json_text(&r->results, "key", row->key);
    json_raw(&r->results, "attempts", row->attempts);
    json_text(&r->results, "result", result);
    if (strcmp(result, "ok") != 0) {
        json_raw(&r->results, "event", row->event);
        json_text(&r->results, "error", r->why);
    }
    json_end_object(&r->results);
}

/* False when nobody is there: the rest stays for later. */
static bool row_do(struct events *e, struct round *r, const struct event_row *row)
{
    enum delivery d = DELIVERED;
    r->why[0] = '\0';
    if (row->matches && (row->behind || key_failed(r, row->key))) {
        result_add(r, row, "queued");
    } else if (row->matches) {
        d = r->sink->url ? webhook_deliver(e, r, row) : broker_deliver(e, r, row);
        if (d == AWAY)
            return false;
        result_add(r, row, d == DELIVERED ? "ok" : "refused");
    }
    if (d == REFUSED && r->failed_count < EVENT_MAX_BATCH)
        r->failed[r->failed_count++] = row->key;
    if (row->xid) {
        r->to_xid = row->xid;
        r->to_id = row->id;
    }
    return true;
}

static enum err rows_do(struct events *e, struct round *r)
{
    json_begin_array(&r->results);
    int64_t end_us = clock_mono_us() + BATCH_US;
    for (size_t i = 0; i < r->count && !r->away && !stopping(e) && clock_mono_us() < end_us; i++)
        r->away = !row_do(e, r, &r->rows[i]);
    json_end_array(&r->results);
    if (r->results.overflow)
        return ERR_NO_MEMORY;
    return event_done(e->db, &r->arena, r->sink->id, e->me, buf_text(&r->results), r->to_xid,
                      r->to_id, r->away ? r->why : NULL);
}

/* One batch; false: there is no more to do for now. */
static bool sink_round(struct events *e, const struct event_sink *sink)
{
    struct round r = {.sink = sink};
    arena_init(&r.arena, ARENA_BYTES);
    buf_init(&r.results, MAX_RESULTS_BYTES);
    enum err err = event_batch_load(e->db, &r.arena, sink->id, e->me, &r.rows, &r.count);
    if (!err && r.count > 0)
        err = rows_do(e, &r);
    bool more = !err && r.count > 0 && !r.away;
    if (err && err != ERR_CONFLICT && err != ERR_UNAVAILABLE)
        log_text(LOG_ERROR, "events.not_delivered", "receiver", sink->name);
    buf_done(&r.results);
    arena_done(&r.arena);
    return more;
}

static void sinks_do(struct events *e)
{
    _cleanup_(arena_donep) struct arena arena;
    struct event_sink *sinks = NULL;
    size_t count = 0;
    arena_init(&arena, ARENA_BYTES);
    if (event_sinks_load(e->db, &arena, &sinks, &count))
        return;
    for (size_t i = 0; i < count; i++) {
        if (!sinks[i].url && !e->publish)
            continue; /* another replica may have a broker */
        for (int n = 0; n < MAX_ROUNDS && !stopping(e) && sink_round(e, &sinks[i]); n++)
            ;
    }
}

/* Sleeps for a tick; false at the end. */
static bool tick_wait(struct events *e)
{
    struct timespec at = clock_deadline((int64_t)TICK_MS * 1000);
    int rc = 0;
    pthread_mutex_lock(&e->lock);
    while (!e->stop && rc == 0)
        rc = pthread_cond_timedwait(&e->wake, &e->lock, &at);
    bool go_on = !e->stop;
    pthread_mutex_unlock(&e->lock);
    return go_on;
}

static void *events_run(void *arg)
{
    struct events *e = arg;
    while (tick_wait(e))
        sinks_do(e);
    if (event_leave(e->db, e->me))
        log_text(LOG_WARN, "events.not_left", "receivers", "others wait half a minute");
    return NULL;
}

static enum err webhooks_make(struct events *e, const struct events_config *config)
{
    buf_init(&e->secret, config->secret.len + 1);
    if (config->secret.len == 0)
        return ERR_OK;
    buf_add(&e->secret, config->secret.data, config->secret.len);
    enum err err = hook_http_begin();
    e->http = !err;
    return err ? err : hook_caller_new(config->ca, &e->caller);
}

static void parts_free(struct events *e)
{
    hook_caller_free(e->caller);
    if (e->http)
        hook_http_end();
    secret_cleanse(e->secret.data, e->secret.len);
    buf_done(&e->secret);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->wake);
    free(e);
}

enum err events_new(struct db *db, const struct events_config *config, struct events **ret_events)
{
    struct events *e = calloc(1, sizeof(*e));
    if (!e)
        return ERR_NO_MEMORY;
    e->db = db;
    e->publish = config->publish;
    e->ctx = config->ctx;
    clock_cond_init(&e->wake);
    pthread_mutex_init(&e->lock, NULL);
    enum err err = id_new(e->me);
    if (!err)
        err = webhooks_make(e, config);
    if (!err && pthread_create(&e->thread, NULL, events_run, e) != 0)
        err = ERR_SYSTEM;
    if (err)
        parts_free(e);
    else
        *ret_events = e;
    return err;
}

void events_free(struct events *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    e->stop = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    parts_free(e);
}
