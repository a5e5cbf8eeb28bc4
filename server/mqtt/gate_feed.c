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
#include "enroll/grants.h"
#include "mqtt/gate_batch.h"
#include "store/gate.h"

enum {
    TICK_US = 250000,
    STATUS_WAIT_US = 3000000,    /* for the plugin's word on a batch */
    QUIET_US = 3000000,          /* a load that moves within it is somebody else's */
    POSITION_US = 10000000,      /* how often the position moves where nothing changed */
    PAGE_ARENA_BYTES = 64 << 20, /* entries of a page with their policies' documents */
    MAX_SEEN_BYTES = 65536,
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
    int64_t cas_epoch; /* at which the CAs were told; 0: not yet */
    bool failing;      /* the registry could not be read; it was logged */
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

/* Sleeps for a tick; false at the end. */
static bool tick_wait(struct gate_feed *f)
{
    struct timespec at = clock_deadline(TICK_US);
    int rc = 0;
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
    if (f->connection !=
        f->seen_connection) { /* what is told to one broker, another does not know */
        buf_reset(&f->seen);
        f->cas_epoch = 0;
    }
    f->seen_connection = f->connection;
    pthread_mutex_unlock(&f->lock);
    return known;
}

/* Waits for a status that is no longer that of *s; false: there was none in time. */
static bool status_next(struct gate_feed *f, struct gate_status *s)
{
    struct timespec at = clock_deadline(STATUS_WAIT_US);
    int rc = 0;
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
                           unsigned flags, struct bytes records)
{
    _cleanup_(buf_donep) struct buf b = {0};
    const struct gate_batch head = {s->counter, position, flags};
    buf_init(&b, WIRE_MAX_BATCH_BYTES);
    gate_batch_begin(&head, &b);
    buf_add(&b, records.data, records.len);
    enum err e = b.overflow ? ERR_NO_MEMORY : f->send(f->ctx, buf_bytes(&b));
    if (e)
        return e;
    f->position_us = clock_mono_us();
    return status_next(f, s) ? ERR_OK : ERR_UNAVAILABLE;
}

/* Pages. */

/* A page of certificates as the records of one batch, with the policies they refer to. */
struct page_records {
    struct arena arena;
    struct gate_page page;
    struct buf records;
};

static void page_records_done(struct page_records *r)
{
    buf_done(&r->records);
    arena_done(&r->arena);
}

static enum err records_make(struct gate_feed *f, struct page_records *r)
{
    struct grant_forms forms;
    struct bytes grants;
    enum err e = grant_forms_load(f->db, &r->arena, &r->page, &forms);
    for (size_t i = 0; i < forms.count && !e; i++)
        gate_batch_policy(forms.rows[i].number, forms.rows[i].form, &r->records);
    for (size_t i = 0; i < r->page.count && !e; i++) {
        e = grants_encode(&r->arena, &r->page.entries[i], &forms, &grants);
        if (!e)
            gate_batch_certificate(&r->page.entries[i], grants, &r->records);
    }
    return e;
}

/* Where the certificates of a page come from: changes, or all of a kind. */
struct page_source {
    const struct gate_cursor *cursor; /* NULL: load */
    enum err (*load)(struct db *db, struct arena *arena, int64_t after, unsigned most,
                     struct gate_page *ret_page);
    int64_t after;
};

static enum err page_fill(struct gate_feed *f, const struct page_source *source, unsigned most,
                          struct page_records *r)
{
    arena_init(&r->arena, PAGE_ARENA_BYTES);
    buf_init(&r->records, WIRE_MAX_BATCH_BYTES - WIRE_BATCH_HEADER_BYTES);
    enum err e = source->cursor
                     ? gate_changes_load(f->db, &r->arena, source->cursor, most, &r->page)
                     : source->load(f->db, &r->arena, source->after, most, &r->page);
    return e ? e : records_make(f, r);
}

/* As many as fit into one batch: certificates must never come without their policies. */
static enum err page_get(struct gate_feed *f, const struct page_source *source,
                         struct page_records *r)
{
    for (unsigned most = WIRE_MAX_BATCH_ENTRIES;; most /= 2) {
        *r = (struct page_records){0};
        enum err e = page_fill(f, source, most, r);
        if (e || !r->records.overflow || most == 1)
            return e;
        page_records_done(r);
    }
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
    _cleanup_(page_records_done) struct page_records r = {0};
    const struct page_source source = {.cursor = cursor};
    enum err e = page_get(f, &source, &r);
    if (e)
        return e;
    int64_t position = page_position(cursor, &r.page);
    bool due = position > s->position && clock_mono_us() - f->position_us >= POSITION_US;
    *ret_more = r.page.more;
    cursor->after_position = r.page.last_position;
    cursor->after_id = r.page.last_id;
    if (r.page.count == 0 && !due)
        return ERR_OK;
    e = batch_send(f, s, position, 0, buf_bytes(&r.records));
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
                          struct bytes records)
{
    enum err e = batch_send(f, s, f->mark, flags, records);
    return !e && s->position != f->mark ? ERR_CONFLICT : e;
}

static enum err load_page(struct gate_feed *f, struct gate_status *s, struct page_source *source,
                          bool *ret_more)
{
    _cleanup_(page_records_done) struct page_records r = {0};
    enum err e = page_get(f, source, &r);
    if (!e && r.page.count > 0)
        e = load_send(f, s, 0, buf_bytes(&r.records));
    *ret_more = r.page.more;
    source->after = r.page.last_id;
    return e;
}

static enum err load_all(struct gate_feed *f, struct gate_status *s, struct page_source source)
{
    enum err e = ERR_OK;
    for (bool more = true; more && !e;)
        e = load_page(f, s, &source, &more);
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
    const struct bytes none = {0};
    int64_t began_us = clock_mono_us();
    if (!mark_make(f))
        return ERR_SYSTEM;
    buf_reset(&f->seen);
    enum err e = load_send(f, s, WIRE_BATCH_CLEAR, none);
    if (!e)
        e = load_all(f, s, (struct page_source){.load = gate_claims_load});
    if (!e)
        e = load_all(f, s, (struct page_source){.load = gate_certificates_load});
    if (!e)
        e = batch_send(f, s, now->stable, WIRE_BATCH_READY, none);
    if (!e && !(s->ready && s->position >= now->stable))
        e = ERR_CONFLICT;
    if (!e)
        load_log(s, began_us);
    return e;
}

/* The CAs that the broker is to trust, whenever what replicas cache has changed. That it is told
 * twice, or another replica's batch was taken instead, does no harm: it is told again with the next
 * change of counter. */
static enum err cas_tell(struct gate_feed *f, struct gate_status *s, const struct gate_now *now)
{
    _cleanup_(arena_donep) struct arena arena;
    _cleanup_(buf_donep) struct buf records = {0};
    struct bytes *ders = NULL;
    size_t count = 0;
    uint64_t before = s->counter;
    arena_init(&arena, PAGE_ARENA_BYTES);
    buf_init(&records, WIRE_MAX_BATCH_BYTES - WIRE_BATCH_HEADER_BYTES);
    enum err e = gate_cas_load(f->db, &arena, &ders, &count);
    for (size_t i = 0; i < count && !e; i++)
        gate_batch_ca(ders[i], &records);
    if (!e)
        e = batch_send(f, s, s->position, WIRE_BATCH_CAS, buf_bytes(&records));
    if (!e && s->counter == before + 1)
        f->cas_epoch = now->epoch;
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
    e = s->ready && followed ? changes_tell(f, s, &now) : load_tell(f, s, &now);
    return e || f->cas_epoch == now.epoch ? e : cas_tell(f, s, &now);
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
    if (clock_cond_init(&f->changed) != 0)
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
