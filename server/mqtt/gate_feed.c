#include "mqtt/gate_feed.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json_out.h"
#include "base/log.h"
#include "base/secret.h"
#include "mqtt/gate_batch.h"
#include "store/gate.h"

enum {
    TICK_US = 250000,
    STATUS_WAIT_US = 3000000,   /* for the plugin's word on a batch */
    QUIET_US = 3000000,         /* a load that moves within it is somebody else's */
    POSITION_US = 10000000,     /* how often the position moves where nothing changed */
    PAGE_ARENA_BYTES = 1 << 20, /* entries of a page, and a snapshot */
    MAX_SEEN_BYTES = 65536,
    US_PER_S = 1000000,
    NS_PER_US = 1000,
};

/* Marks of loads look like no position of the registry. */
static const uint64_t mark_bit = UINT64_C(1) << 61;

struct gate_feed {
    struct db *db;
    struct metrics_mqtt *cells;
    gate_send send;
    void *ctx;
    pthread_t thread;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct gate_status status;
    bool known;          /* status is the table's */
    int64_t moved_us;    /* when its counter was first seen */
    unsigned connection; /* raised whenever the connection is lost */
    bool stop;

    /* The thread's own. */
    unsigned seen_connection;
    struct buf seen;     /* snapshot of what was told last; len 0: none */
    int64_t position_us; /* when a batch was sent last */
    int64_t mark;        /* of our last load */
    int64_t quiet_jitter_us;
    bool failing; /* the registry could not be read; it was logged */
};

void gate_feed_status(struct gate_feed *f, struct bytes text)
{
    struct gate_status s;
    if (gate_status_parse(text, &s))
        return;
    atomic_store(&f->cells->gate_entries, s.entries);
    atomic_store(&f->cells->gate_ready, s.ready);
    pthread_mutex_lock(&f->lock);
    if (!f->known || s.counter != f->status.counter)
        f->moved_us = clock_mono_us();
    f->status = s;
    f->known = true;
    pthread_cond_signal(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

void gate_feed_away(struct gate_feed *f)
{
    atomic_store(&f->cells->gate_ready, false);
    pthread_mutex_lock(&f->lock);
    f->known = false;
    f->connection++;
    pthread_cond_signal(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void deadline_after(int64_t us, struct timespec *ret_at)
{
    clock_gettime(CLOCK_MONOTONIC, ret_at);
    int64_t ns = ret_at->tv_nsec + us % US_PER_S * NS_PER_US;
    ret_at->tv_sec += us / US_PER_S + ns / ((int64_t)US_PER_S * NS_PER_US);
    ret_at->tv_nsec = ns % ((int64_t)US_PER_S * NS_PER_US);
}

/* Sleeps for a tick; false at the end. */
static bool tick_wait(struct gate_feed *f)
{
    struct timespec at;
    int rc = 0;
    deadline_after(TICK_US, &at);
    pthread_mutex_lock(&f->lock);
    while (!f->stop && rc == 0)
        rc = pthread_cond_timedwait(&f->changed, &f->lock, &at);
    bool go_on = !f->stop;
    pthread_mutex_unlock(&f->lock);
    return go_on;
}

/* The table as it was told last; false: nothing is known of it. */
static bool status_get(struct gate_feed *f, struct gate_status *ret_status, int64_t *ret_moved_us)
{
    pthread_mutex_lock(&f->lock);
    bool known = f->known;
    *ret_status = f->status;
    *ret_moved_us = f->moved_us;
    if (f->connection != f->seen_connection)
        buf_reset(&f->seen); /* what is told to one broker, another does not know */
    f->seen_connection = f->connection;
    pthread_mutex_unlock(&f->lock);
    return known;
}

/* Waits for a status that is no longer that of *s; false: there was none in time. */
static bool status_next(struct gate_feed *f, struct gate_status *s)
{
    struct timespec at;
    int rc = 0;
    deadline_after(STATUS_WAIT_US, &at);
    pthread_mutex_lock(&f->lock);
    while (!f->stop && f->known && f->status.counter == s->counter && rc == 0)
        rc = pthread_cond_timedwait(&f->changed, &f->lock, &at);
    bool came = !f->stop && f->known && f->status.counter != s->counter;
    if (came)
        *s = f->status;
    pthread_mutex_unlock(&f->lock);
    return came;
}

/* Sends a batch for the table as *s has it, and waits for what became of it. */
static enum err batch_send(struct gate_feed *f, struct gate_status *s, int64_t position,
                           unsigned flags, const struct gate_page *page)
{
    _cleanup_(buf_donep) struct buf b = {0};
    const struct gate_batch head = {s->counter, position, flags};
    buf_init(&b, GATE_BATCH_MAX_BYTES);
    gate_batch_encode(&head, page->entries, page->count, &b);
    enum err e = b.overflow ? ERR_NO_MEMORY : f->send(f->ctx, buf_bytes(&b));
    if (e)
        return e;
    f->position_us = clock_mono_us();
    return status_next(f, s) ? ERR_OK : ERR_UNAVAILABLE;
}

/* Changes. */

static int64_t greater(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* How far a page brings the table: to where the registry stood when the reading began, or to the
 * page's last transaction, which may go on in the next page. */
static int64_t page_position(const struct gate_cursor *cursor, const struct gate_page *page)
{
    int64_t position = greater(cursor->base, cursor->stable);
    if (page->more && page->last_position < position)
        position = greater(cursor->base, page->last_position);
    return position;
}

/* Tells one page. ERR_CONFLICT: another replica's batch was taken instead. */
static enum err changes_page(struct gate_feed *f, struct gate_status *s, struct gate_cursor *cursor,
                             bool *ret_more)
{
    _cleanup_(arena_donep) struct arena arena;
    struct gate_page page;
    arena_init(&arena, PAGE_ARENA_BYTES);
    enum err e = gate_changes_load(f->db, &arena, cursor, &page);
    if (e)
        return e;
    int64_t position = page_position(cursor, &page);
    bool due = position > s->position && clock_mono_us() - f->position_us >= POSITION_US;
    *ret_more = page.more;
    cursor->after_position = page.last_position;
    cursor->after_id = page.last_id;
    if (page.count == 0 && !due)
        return ERR_OK;
    e = batch_send(f, s, position, 0, &page);
    if (e)
        return e;
    return s->ready && s->position >= position ? ERR_OK : ERR_CONFLICT;
}

static void seen_set(struct gate_feed *f, const char *snapshot)
{
    buf_reset(&f->seen);
    buf_add_text(&f->seen, snapshot);
    if (f->seen.overflow) {
        buf_done(&f->seen);
        buf_init(&f->seen, MAX_SEEN_BYTES);
    }
}

static enum err changes_tell(struct gate_feed *f, struct gate_status *s, const struct gate_now *now)
{
    struct gate_cursor cursor = {.base = s->position,
                                 .stable = now->stable,
                                 .seen = f->seen.len > 0 ? buf_text(&f->seen) : NULL};
    bool more = true;
    enum err e = ERR_OK;
    while (more && !e)
        e = changes_page(f, s, &cursor, &more);
    if (!e)
        seen_set(f, now->snapshot);
    return e;
}

/* The whole. */

static bool mark_make(struct gate_feed *f)
{
    uint64_t random[2];
    if (secret_random(random, sizeof(random)))
        return false;
    f->mark = (int64_t)(mark_bit | (random[0] & (mark_bit - 1)));
    f->quiet_jitter_us = (int64_t)(random[1] % QUIET_US);
    return true;
}

/* While a load goes on its mark stands in the position's place. ERR_CONFLICT: another's does. */
static enum err load_send(struct gate_feed *f, struct gate_status *s, unsigned flags,
                          const struct gate_page *page)
{
    enum err e = batch_send(f, s, f->mark, flags, page);
    return !e && s->position != f->mark ? ERR_CONFLICT : e;
}

typedef enum err (*page_source)(struct db *db, struct arena *arena, int64_t after,
                                struct gate_page *ret_page);

static enum err load_all(struct gate_feed *f, struct gate_status *s, page_source source)
{
    struct gate_page page = {.more = true};
    enum err e = ERR_OK;
    for (int64_t after = 0; page.more && !e; after = page.last_id) {
        _cleanup_(arena_donep) struct arena arena;
        arena_init(&arena, PAGE_ARENA_BYTES);
        e = source(f->db, &arena, after, &page);
        if (!e && page.count > 0)
            e = load_send(f, s, 0, &page);
    }
    return e;
}

static void load_log(const struct gate_status *s, int64_t began_us)
{
    struct buf line;
    log_begin(&line, LOG_INFO, "gate.loaded");
    json_int(&line, "entries", s->entries);
    json_int(&line, "us", clock_mono_us() - began_us);
    log_end(&line, LOG_INFO);
}

static enum err load_tell(struct gate_feed *f, struct gate_status *s, const struct gate_now *now)
{
    const struct gate_page none = {0};
    int64_t began_us = clock_mono_us();
    if (!mark_make(f))
        return ERR_SYSTEM;
    buf_reset(&f->seen);
    enum err e = load_send(f, s, WIRE_BATCH_CLEAR, &none);
    if (!e)
        e = load_all(f, s, gate_claims_load);
    if (!e)
        e = load_all(f, s, gate_certificates_load);
    if (!e)
        e = batch_send(f, s, now->stable, WIRE_BATCH_READY, &none);
    if (!e && !(s->ready && s->position >= now->stable))
        e = ERR_CONFLICT;
    if (!e)
        load_log(s, began_us);
    return e;
}

/* Whether another replica fills the table: somebody has begun, and it moves. */
static bool others_load(const struct gate_feed *f, const struct gate_status *s, int64_t moved_us)
{
    bool begun = s->position != 0 || s->entries != 0;
    return !s->ready && begun &&
           clock_mono_us() - moved_us < (int64_t)QUIET_US + f->quiet_jitter_us;
}

static enum err step(struct gate_feed *f, struct gate_status *s)
{
    _cleanup_(arena_donep) struct arena arena;
    struct gate_now now;
    arena_init(&arena, PAGE_ARENA_BYTES);
    enum err e = gate_now_get(f->db, &arena, &now);
    if (e)
        return e;
    bool followed = s->position > now.pruned && s->position <= now.newest;
    return s->ready && followed ? changes_tell(f, s, &now) : load_tell(f, s, &now);
}

/* That another replica was first, or that broker or registry are away, is nothing to tell. */
static void outcome_take(struct gate_feed *f, enum err e, int64_t began_us)
{
    bool failed = e != ERR_OK && e != ERR_CONFLICT && e != ERR_UNAVAILABLE;
    if (!e)
        atomic_store(&f->cells->gate_even_us, began_us);
    if (failed && !f->failing)
        log_text(LOG_ERROR, "gate.not_fed", "error", err_name(e));
    f->failing = failed;
}

static void *feed_run(void *arg)
{
    struct gate_feed *f = arg;
    while (tick_wait(f)) {
        struct gate_status s;
        int64_t moved_us = 0, began_us = clock_mono_us();
        if (!status_get(f, &s, &moved_us) || others_load(f, &s, moved_us))
            continue;
        outcome_take(f, step(f, &s), began_us);
    }
    return NULL;
}

static enum err lock_make(struct gate_feed *f)
{
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr) != 0)
        return ERR_SYSTEM;
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    int rc = pthread_cond_init(&f->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (rc != 0)
        return ERR_SYSTEM;
    if (pthread_mutex_init(&f->lock, NULL) != 0) {
        pthread_cond_destroy(&f->changed);
        return ERR_SYSTEM;
    }
    return ERR_OK;
}

static void feed_done(struct gate_feed *f)
{
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    buf_done(&f->seen);
    free(f);
}

enum err gate_feed_new(struct db *db, struct metrics_mqtt *cells, gate_send send, void *ctx,
                       struct gate_feed **ret_feed)
{
    struct gate_feed *f = calloc(1, sizeof(*f));
    if (!f)
        return ERR_NO_MEMORY;
    f->db = db;
    f->cells = cells;
    f->send = send;
    f->ctx = ctx;
    buf_init(&f->seen, MAX_SEEN_BYTES);
    atomic_store(&cells->gate_even_us, clock_mono_us());
    enum err e = lock_make(f);
    if (e) {
        free(f);
        return e;
    }
    if (pthread_create(&f->thread, NULL, feed_run, f) != 0) {
        feed_done(f);
        return ERR_SYSTEM;
    }
    *ret_feed = f;
    return ERR_OK;
}

void gate_feed_free(struct gate_feed *f)
{
    if (!f)
        return;
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_signal(&f->changed);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    feed_done(f);
}
