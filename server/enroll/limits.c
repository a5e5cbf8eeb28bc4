#include "enroll/limits.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/gate.h"
#include "base/limit.h"
#include "enroll/metrics.h"

enum {
    CHAINS = 256,
    CLOSED_US = 100000,  /* how long a full line is not asked again */
    FAILED_US = 500000,  /* nor one that could not be asked */
    STREAM_US = 100000,  /* leases that come faster grow, those that come slower shrink */
    CHUNKS_A_SECOND = 10 /* a lease beyond the callers of now is at most a tenth of a second */
};

static const char *const kind_names[LIMIT_KIND_COUNT] = {"global", "template", "claim", "source"};

/* One limit as renewals or the others see it; made at its first use, kept for good. */
struct line {
    struct line *next;
    enum limit_kind kind;
    int64_t id;
    bool renewal;
    pthread_cond_t refilled;
    bool refilling;   /* one caller is at the database; the others wait for what it brings */
    unsigned wanting; /* callers that wait for that */
    unsigned chunk;
    struct limit_lease lease;
    int64_t asked_us;
    int64_t backlog_us; /* when the slot last given opens */
    int64_t closed_until_us;
    int64_t failed_until_us;
    int64_t retry_us; /* the line of those who were refused */
};

struct count {
    uint64_t waits;
    uint64_t refusals;
    uint64_t leases;
};

struct limits {
    pthread_mutex_t lock; /* guards all below */
    struct limits_config config;
    limits_lease lease;
    void *ctx;
    struct source_limit *source; /* NULL: no limit */
    int64_t source_retry_us;
    unsigned waiting;
    struct count counts[LIMIT_KIND_COUNT];
    struct line *chains[CHAINS];
};

/* A slot of one limit, on the way to the passing. */
struct hold {
    struct line *line;
    struct limit_rate rate;
    struct limit_slot slot;
    bool held;
};

struct passage {
    struct limits *l;
    const struct limits_ask *ask;
    struct fault *fault;
    struct limits_config config;
    int64_t deadline_us;
    struct hold holds[LIMIT_MAX_KEYS];
    size_t count;
    bool outside; /* the gate was left */
};

enum err limits_database(void *ctx, const struct lease_request *request, struct lease_run *ret_run)
{
    return lease_take(ctx, request, ret_run);
}

static unsigned burst_of(struct limit_rate r)
{
    return r.burst > 0 ? r.burst : r.per_second;
}

enum err limits_configure(struct limits *l, const struct limits_config *config)
{
    struct source_limit *source = NULL;
    enum err e = ERR_OK;
    if (config->source.per_second > 0)
        e = source_limit_new_each(config->source.per_second, burst_of(config->source), &source);
    if (e)
        return e;
    pthread_mutex_lock(&l->lock);
    struct source_limit *old = l->source;
    l->source = source;
    l->config = *config;
    pthread_mutex_unlock(&l->lock);
    source_limit_free(old);
    return ERR_OK;
}

enum err limits_new(const struct limits_config *config, limits_lease lease, void *ctx,
                    struct limits **ret_limits)
{
    struct limits *l = calloc(1, sizeof(*l));
    if (!l)
        return ERR_NO_MEMORY;
    l->lease = lease;
    l->ctx = ctx;
    pthread_mutex_init(&l->lock, NULL);
    enum err e = limits_configure(l, config);
    if (e)
        limits_free(l);
    else
        *ret_limits = l;
    return e;
}

void limits_free(struct limits *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < CHAINS; i++) {
        for (struct line *n = l->chains[i], *next = NULL; n; n = next) {
            next = n->next;
            pthread_cond_destroy(&n->refilled);
            free(n);
        }
    }
    source_limit_free(l->source);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* With the lock held. NULL: out of memory. */
static struct line *line_get(struct limits *l, enum limit_kind kind, int64_t id, bool renewal)
{
    struct line **chain = &l->chains[((uint64_t)id * LIMIT_KIND_COUNT + kind) % CHAINS];
    for (struct line *n = *chain; n; n = n->next) {
        if (n->kind == kind && n->id == id && n->renewal == renewal)
            return n;
    }
    struct line *n = calloc(1, sizeof(*n));
    if (!n)
        return NULL;
    *n = (struct line){.next = *chain, .kind = kind, .id = id, .renewal = renewal, .chunk = 1};
    pthread_cond_init(&n->refilled, NULL);
    *chain = n;
    return n;
}

/* With the lock held: a stream of callers is given more at a time, so that a busy limit costs the
 * database about ten leases a second and not one a caller. */
static unsigned lease_size(struct line *n, struct limit_rate rate, int64_t now_us)
{
    bool stream = now_us - n->asked_us < STREAM_US;
    unsigned most = rate.per_second / CHUNKS_A_SECOND;
    n->chunk = stream ? n->chunk * 2 : n->chunk / 2;
    if (n->chunk > most)
        n->chunk = most;
    if (n->chunk < 1)
        n->chunk = 1;
    n->asked_us = now_us;
    return n->chunk > n->wanting + 1 ? n->chunk : n->wanting + 1;
}

/* With the lock held, which is let go meanwhile. */
static enum err line_refill(struct passage *p, struct hold *h)
{
    struct limits *l = p->l;
    struct line *n = h->line;
    int64_t sent_us = clock_mono_us();
    struct limit_plan plan = limit_plan(h->rate, p->config.renewal_share);
    struct lease_request q = {.kind = kind_names[n->kind],
                              .id = n->id,
                              .renewal = n->renewal,
                              .count = lease_size(n, h->rate, sent_us),
                              .common_gap_us = plan.common_gap_us,
                              .renewal_gap_us = plan.renewal_gap_us,
                              .back_us = plan.back_us,
                              .ahead_us = (int64_t)p->config.wait_ms * 1000};
    struct lease_run run = {0};
    n->refilling = true;
    pthread_mutex_unlock(&l->lock);
    enum err e = l->lease(l->ctx, &q, &run);
    int64_t got_us = clock_mono_us();
    pthread_mutex_lock(&l->lock);
    n->refilling = false;
    pthread_cond_broadcast(&n->refilled);
    if (e)
        n->failed_until_us = got_us + FAILED_US;
    else if (run.granted == 0)
        n->closed_until_us = got_us + CLOSED_US;
    else
        n->lease = limit_lease(&run, plan.tolerance_us, sent_us, got_us);
    l->counts[n->kind].leases += run.granted > 0;
    return e;
}

/* With the lock held: a slot that the lease still has and that opens in time. */
static bool lease_use(struct hold *h, int64_t now_us, int64_t deadline_us)
{
    struct limit_lease before = h->line->lease;
    if (!limit_lease_next(&h->line->lease, now_us, &h->slot))
        return false;
    h->held = h->slot.opens_us <= deadline_us;
    if (!h->held)
        h->line->lease = before;
    else
        h->line->backlog_us = h->slot.opens_us;
    return h->held;
}

static enum err lease_failed(struct passage *p, enum err e)
{
    return fault_set(p->fault, e == ERR_UNAVAILABLE ? FAULT_DB_UNAVAILABLE : FAULT_INTERNAL,
                     "leasing slots of a rate limit: %s", err_name(e));
}

/* With the lock held. */
static enum err line_refuse(struct passage *p, struct hold *h, int64_t now_us)
{
    struct line *n = h->line;
    struct limit_plan plan = limit_plan(h->rate, p->config.renewal_share);
    p->l->counts[n->kind].refusals++;
    p->fault->retry_after_s =
        limit_retry_s(&n->retry_us, now_us, (int64_t)p->config.wait_ms * 1000, plan.common_gap_us);
    return fault_set(p->fault, n->kind == LIMIT_CLAIM ? FAULT_CLAIM_RATE : FAULT_RATE_LIMITED,
                     "%s limit: %u a second, the queue is full", kind_names[n->kind],
                     h->rate.per_second);
}

/* With the lock held: a slot for the hold, leased if need be. */
static enum err slot_take(struct passage *p, struct hold *h)
{
    struct line *n = h->line;
    while (true) {
        int64_t now_us = clock_mono_us();
        bool full = p->l->waiting >= p->config.max_waiting;
        if (now_us <= p->deadline_us && lease_use(h, now_us, full ? now_us : p->deadline_us))
            return ERR_OK;
        if (now_us > p->deadline_us || n->lease.left > 0 || now_us < n->closed_until_us)
            return line_refuse(p, h, now_us);
        if (now_us < n->failed_until_us)
            return lease_failed(p, ERR_UNAVAILABLE);
        if (n->refilling) {
            n->wanting++;
            pthread_cond_wait(&n->refilled, &p->l->lock);
            n->wanting--;
            continue;
        }
        enum err e = line_refill(p, h);
        if (e)
            return lease_failed(p, e);
    }
}

static void sleep_until(int64_t at_us)
{
    const struct timespec at = {.tv_sec = at_us / 1000000, .tv_nsec = at_us % 1000000 * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}

/* With the lock held, which is let go meanwhile: waits for the slot to open. */
static void slot_await(struct passage *p, struct hold *h)
{
    struct limits *l = p->l;
    if (h->slot.opens_us <= clock_mono_us())
        return;
    l->waiting++;
    l->counts[h->line->kind].waits++;
    pthread_mutex_unlock(&l->lock);
    if (p->ask->gate && !p->outside)
        gate_leave(p->ask->gate);
    p->outside = true;
    sleep_until(h->slot.opens_us);
    pthread_mutex_lock(&l->lock);
    l->waiting--;
}

/* The limit with the longest queue first: what the others give for nothing must not lapse in it. */
static struct hold *hold_missing(struct passage *p)
{
    struct hold *worst = NULL;
    for (size_t i = 0; i < p->count; i++) {
        struct hold *h = &p->holds[i];
        if (!h->held && (!worst || h->line->backlog_us > worst->line->backlog_us))
            worst = h;
    }
    return worst;
}

static enum err holds_gather(struct passage *p)
{
    enum err e = ERR_OK;
    struct hold *h = NULL;
    pthread_mutex_lock(&p->l->lock);
    while (!e && (h = hold_missing(p))) {
        e = slot_take(p, h);
        if (!e)
            slot_await(p, h);
    }
    pthread_mutex_unlock(&p->l->lock);
    return e;
}

/* Lets go what became too old while another was waited for. */
static bool holds_valid(struct passage *p)
{
    bool valid = true;
    int64_t now_us = clock_mono_us();
    for (size_t i = 0; i < p->count; i++) {
        p->holds[i].held = p->holds[i].slot.closes_us >= now_us;
        valid = valid && p->holds[i].held;
    }
    return valid;
}

static void gate_enter_again(struct passage *p)
{
    if (p->ask->gate && p->outside)
        gate_return(p->ask->gate);
    p->outside = false;
}

/* With the lock held. */
static enum err hold_add(struct passage *p, enum limit_kind kind, int64_t id,
                         struct limit_rate rate)
{
    if (rate.per_second == 0)
        return ERR_OK;
    struct line *n = line_get(p->l, kind, id, p->ask->renewal);
    if (!n)
        return fault_set(p->fault, FAULT_INTERNAL, "out of memory");
    p->holds[p->count++] = (struct hold){.line = n, .rate = rate};
    return ERR_OK;
}

/* With the lock held. */
static enum err source_check(struct passage *p, int64_t now_us)
{
    struct limits *l = p->l;
    if (!l->source || source_limit_take(l->source, p->ask->source, now_us))
        return ERR_OK;
    l->counts[LIMIT_SOURCE].refusals++;
    p->fault->retry_after_s =
        limit_retry_s(&l->source_retry_us, now_us, 0, 1000000 / l->config.source.per_second + 1);
    return fault_set(p->fault, FAULT_RATE_LIMITED, "source limit: %u a second",
                     l->config.source.per_second);
}

static enum err passage_begin(struct passage *p)
{
    int64_t now_us = clock_mono_us();
    pthread_mutex_lock(&p->l->lock);
    p->config = p->l->config;
    p->deadline_us = now_us + (int64_t)p->config.wait_ms * 1000;
    enum err e = source_check(p, now_us);
    for (size_t i = 0; i < p->ask->key_count && !e; i++)
        e = hold_add(p, p->ask->keys[i].kind, p->ask->keys[i].id, p->ask->keys[i].rate);
    if (!e)
        e = hold_add(p, LIMIT_GLOBAL, 0, p->config.global);
    pthread_mutex_unlock(&p->l->lock);
    return e;
}

enum err limits_pass(struct limits *l, const struct limits_ask *ask, struct fault *fault)
{
    struct passage p = {.l = l, .ask = ask, .fault = fault};
    enum err e = passage_begin(&p);
    bool passed = p.count == 0;
    while (!e && !passed) {
        e = holds_gather(&p);
        gate_enter_again(&p);
        passed = !e && holds_valid(&p);
    }
    return e;
}

void limits_write(struct limits *l, struct buf *b)
{
    struct count counts[LIMIT_KIND_COUNT];
    int64_t held[LIMIT_KIND_COUNT] = {0};
    pthread_mutex_lock(&l->lock);
    for (int k = 0; k < LIMIT_KIND_COUNT; k++)
        counts[k] = l->counts[k];
    for (size_t i = 0; i < CHAINS; i++) {
        for (const struct line *n = l->chains[i]; n; n = n->next)
            held[n->kind] += n->lease.left;
    }
    unsigned waiting = l->waiting;
    pthread_mutex_unlock(&l->lock);
    metrics_head(b, "muster_limit_refusals_total", "counter", "Requests told load.rate_limited");
    for (int k = 0; k < LIMIT_KIND_COUNT; k++)
        metrics_value(b, "muster_limit_refusals_total", "kind", kind_names[k],
                      (double)counts[k].refusals);
    metrics_head(b, "muster_limit_waits_total", "counter", "Requests that waited for their turn");
    for (int k = 0; k < LIMIT_SOURCE; k++)
        metrics_value(b, "muster_limit_waits_total", "kind", kind_names[k],
                      (double)counts[k].waits);
    metrics_head(b, "muster_limit_leases_total", "counter", "Leases taken from the registry");
    for (int k = 0; k < LIMIT_SOURCE; k++)
        metrics_value(b, "muster_limit_leases_total", "kind", kind_names[k],
                      (double)counts[k].leases);
    metrics_head(b, "muster_limit_slots_held", "gauge", "Slots leased and not used yet");
    for (int k = 0; k < LIMIT_SOURCE; k++)
        metrics_value(b, "muster_limit_slots_held", "kind", kind_names[k], (double)held[k]);
    metrics_head(b, "muster_limit_waiting", "gauge", "Requests that wait for their turn");
    metrics_value(b, "muster_limit_waiting", NULL, NULL, waiting);
}
