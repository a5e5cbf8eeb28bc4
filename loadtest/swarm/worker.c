#include "worker.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "call.h"

enum {
    PAUSE_US = 200000,
    MAX_WAITING = 200, /* of one page */
    FINGERPRINT_CHARS = 64,
    MAX_PATH_BYTES = 192,
    MAX_TOKEN_BYTES = 160,
    HOST_BYTES = 256,
    OK = 200
};

struct worker {
    struct dial_target target;
    char host[HOST_BYTES];
    char authorization[MAX_TOKEN_BYTES];
    char list_path[MAX_PATH_BYTES];
    char path[MAX_PATH_BYTES];
    char waiting[MAX_WAITING][FINGERPRINT_CHARS + 1];
    size_t count; /* of them, and which is next */
    size_t next;
    struct call call;
    bool calling;
    struct timer timer;
    size_t activated;
    size_t failed;
};

static void answered(struct call *c);

static void fill(struct worker *w)
{
    bool list = w->next == w->count;
    if (!list)
        snprintf(w->path, sizeof(w->path), "/admin/v1/certs/%s/activate", w->waiting[w->next]);
    w->call.method = list ? "GET" : "POST";
    w->call.path = list ? w->list_path : w->path;
    w->call.type = list ? NULL : "application/json";
    w->call.body = list ? bytes_of(NULL, 0) : bytes_text("{}");
}

static void pause_begin(struct worker *w)
{
    w->count = w->next = 0;
    if (loop_timer(w->target.loop, &w->timer, clock_mono_us() + PAUSE_US))
        abort(); /* the loop cannot go on without memory */
}

static void list_take(struct worker *w, struct bytes answer)
{
    _cleanup_(json_decrefp) json_t *rows =
        json_loadb((const char *)answer.data, answer.len, JSON_REJECT_DUPLICATES, NULL);
    w->count = w->next = 0;
    for (size_t i = 0; i < json_array_size(rows) && i < MAX_WAITING; i++) {
        const char *fingerprint =
            json_string_value(json_object_get(json_array_get(rows, i), "fingerprint"));
        if (fingerprint && strlen(fingerprint) == FINGERPRINT_CHARS)
            snprintf(w->waiting[w->count++], FINGERPRINT_CHARS + 1, "%s", fingerprint);
    }
}

/* One connection for a page and all that is done with it. */
static void answered(struct call *c)
{
    struct worker *w = c->owner;
    bool list = w->next == w->count, good = c->stage == CALL_DONE && c->status == OK;
    w->failed += !good;
    if (good && list)
        list_take(w, c->answer);
    else if (!list) {
        w->activated += good;
        w->next++;
    }
    w->calling = c->stage == CALL_DONE;
    if (w->calling && w->next < w->count) {
        fill(w);
        if (call_again(c) == ERR_OK)
            return;
    }
    if (w->calling)
        call_abandon(c);
    w->calling = false;
    pause_begin(w);
}

static void timer_due(struct timer *t)
{
    struct worker *w = (struct worker *)((char *)t - offsetof(struct worker, timer));
    w->call = (struct call){.target = &w->target,
                            .authorization = w->authorization,
                            .keep = true,
                            .done = answered,
                            .owner = w};
    fill(w);
    w->calling = call_start(&w->call) == ERR_OK;
    if (!w->calling)
        pause_begin(w);
}

enum err worker_new(const struct dial_target *target, const char *ca, struct worker **ret_worker)
{
    const char *url = getenv("MUSTER_ADMIN_URL"), *token = getenv("MUSTER_ADMIN_TOKEN");
    char port[8] = "";
    struct worker *w = calloc(1, sizeof(*w));
    if (!w)
        return ERR_NO_MEMORY;
    w->target = *target;
    w->timer.due = timer_due;
    if (!url || !token || strlen(token) > MAX_TOKEN_BYTES - sizeof("Bearer ") ||
        sscanf(url, "https://%255[^:/]:%7[0-9]", w->host, port) != 2 ||
        dial_resolve(&w->target, w->host, port)) {
        fprintf(stderr, "swarm: MUSTER_ADMIN_URL (https://HOST:PORT) or MUSTER_ADMIN_TOKEN is not "
                        "as it should be; run `. .dev/env` first\n");
        free(w);
        return ERR_INVALID;
    }
    snprintf(w->authorization, sizeof(w->authorization), "Bearer %s", token);
    snprintf(w->list_path, sizeof(w->list_path),
             "/admin/v1/certs:waiting?status=pending&ca=%.64s&limit=%d", ca, MAX_WAITING);
    *ret_worker = w;
    return ERR_OK;
}

void worker_start(struct worker *w)
{
    pause_begin(w);
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    if (w->calling)
        call_abandon(&w->call);
    free(w);
}

size_t worker_activated(const struct worker *w)
{
    return w->activated;
}

size_t worker_failed(const struct worker *w)
{
    return w->failed;
}
