/* The committer: leader/follower group commit of enrolments. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json_out.h"
#include "store/commit.h"

static const struct stmt batch_stmt = {
    "enrol_batch", "SELECT " ENROL_OUTCOME_COLUMNS " FROM enrol_batch($1::jsonb)", 1};
const struct stmt_set commit_statements = {&batch_stmt, 1};

/* The larger a batch the less each enrolment costs, so a busy leader waits for others: when they
 * come this often, while at least so many connections are on their way and enrolments go on coming,
 * for as long as it may take, or until so many are there. Where the processors keep up, few are on
 * their way, and nobody waits for company.
 * A second leader starts only when this many wait, or one has waited this long, as behind a batch
 * that waits for a lock. */
enum {
    GATHER_GAP_US = 2000,
    GATHER_MAX_GAP_US = 10 * 1000, /* after a silence they are soon often again */
    GATHER_SILENCE_US = 3000,
    GATHER_COMING = 3,
    GATHER_US = 12 * 1000,
    GATHER_COUNT = 24,
    SECOND_LEADER_COUNT = 32,
    SECOND_LEADER_US = 20 * 1000
};

/* One thread's enrolment on its way; on that thread's stack until done. */
struct waiter {
    const struct enrol_record *record;
    struct arena *arena;
    struct enrol_outcome outcome;
    enum err err;
    bool done;
    pthread_cond_t wake;
    struct waiter *next;
};

struct committer {
    struct db *db;
    const atomic_uint *coming;
    pthread_mutex_t lock; /* guards everything below and the waiters' done and next */
    struct waiter *head;
    struct waiter **tail;
    size_t queued;
    unsigned leaders;
    struct waiter *gathering; /* the leader that waits for others */
    int64_t arrived_us;       /* the newest waiter */
    int64_t gap_us;           /* mean time between waiters of late */
    struct histogram batches; /* lock-free */
};

enum err committer_new(struct db *db, const atomic_uint *coming, struct committer **ret_committer)
{
    struct committer *c = calloc(1, sizeof(*c));
    if (!c)
        return ERR_NO_MEMORY;
    c->db = db;
    c->coming = coming;
    c->tail = &c->head;
    c->gap_us = GATHER_MAX_GAP_US;
    c->batches.scale = &histogram_size;
    pthread_mutex_init(&c->lock, NULL);
    *ret_committer = c;
    return ERR_OK;
}

const struct histogram *committer_batches(const struct committer *c)
{
    return &c->batches;
}

void committer_free(struct committer *c)
{
    if (!c)
        return;
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* Hands each waiter of the batch its row. */
static enum err outcomes_take(const PGresult *r, struct waiter **batch, size_t count)
{
    if (PQntuples(r) != (int)count)
        return ERR_SYSTEM;
    for (int row = 0; row < (int)count; row++) {
        size_t ord = (size_t)strtoul(PQgetvalue(r, row, 0), NULL, 10);
        if (ord >= count)
            return ERR_SYSTEM;
        batch[ord]->err = enrol_outcome_read(r, row, batch[ord]->arena, &batch[ord]->outcome);
    }
    return ERR_OK;
}

static enum err batch_record(struct db *db, struct waiter **batch, size_t count)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, count * ENROL_MAX_RECORD_BYTES);
    json_begin_array(&b);
    for (size_t i = 0; i < count; i++)
        enrol_record_add(&b, batch[i]->record, i);
    json_end_array(&b);
    if (b.overflow)
        return ERR_INVALID;
    const char *params[] = {buf_text(&b)};
    DB_RESULT r = NULL;
    char message[DB_MAX_MESSAGE_BYTES];
    enum err e = db_query(db, &batch_stmt, params, &r, message);
    if (!e)
        return outcomes_take(r, batch, count);
    if (count == 1) {
        const char *why = arena_strdup(batch[0]->arena, message);
        batch[0]->outcome.detail = why ? why : "";
    }
    return e;
}

enum { ALONE_TRIES = 4 };

/* Records a batch; where one row spoils it for all, each goes alone. One that meets another of its
 * kind, of another replica, sees it when it is judged again. */
static void batch_run(struct db *db, struct waiter **batch, size_t count)
{
    enum err e = batch_record(db, batch, count);
    for (int i = 1; i < ALONE_TRIES && count == 1 && e == ERR_CONFLICT; i++)
        e = batch_record(db, batch, count);
    if (!e)
        return;
    if (count == 1 || e == ERR_UNAVAILABLE) {
        for (size_t i = 0; i < count; i++)
            batch[i]->err = e;
        return;
    }
    for (size_t i = 0; i < count; i++)
        batch_run(db, &batch[i], 1);
}

/* With the lock held: takes what is queued, up to a batch. */
static size_t queue_take(struct committer *c, struct waiter **batch)
{
    size_t n = 0;
    while (c->head && n < ENROL_MAX_BATCH) {
        batch[n++] = c->head;
        c->head = c->head->next;
    }
    c->queued -= n;
    if (!c->head)
        c->tail = &c->head;
    return n;
}

/* With the lock held: until woken or the time is over, which is true. */
static bool wait_for(struct committer *c, struct waiter *w, int64_t us)
{
    struct timespec until = clock_deadline(us);
    return pthread_cond_timedwait(&w->wake, &c->lock, &until) == ETIMEDOUT;
}

/* With the lock held: whether those who wait have company to expect. */
static bool company(const struct committer *c)
{
    return c->queued < GATHER_COUNT && atomic_load(c->coming) >= GATHER_COMING;
}

/* With the lock held: lets a batch grow, if others are to be expected. */
static void gather(struct committer *c, struct waiter *self)
{
    if (c->gap_us > GATHER_GAP_US || c->gathering)
        return;
    int64_t end_us = clock_mono_us() + GATHER_US;
    c->gathering = self;
    while (!self->done && company(c)) {
        int64_t now_us = clock_mono_us(), quiet_us = c->arrived_us + GATHER_SILENCE_US;
        int64_t until_us = quiet_us < end_us ? quiet_us : end_us;
        if (now_us >= until_us)
            break;
        wait_for(c, self, until_us - now_us);
    }
    c->gathering = NULL;
}

/* With the lock held: puts a waiter behind the others. */
static void queue_put(struct committer *c, struct waiter *w)
{
    int64_t now_us = clock_mono_us(), gap_us = now_us - c->arrived_us;
    c->gap_us += ((gap_us < GATHER_MAX_GAP_US ? gap_us : GATHER_MAX_GAP_US) - c->gap_us) / 8;
    c->arrived_us = now_us;
    *c->tail = w;
    c->tail = &w->next;
    c->queued++;
    if (c->gathering && !company(c))
        pthread_cond_signal(&c->gathering->wake);
}

/* With the lock held: leads one batch; the lock is free while the database works. */
static void lead(struct committer *c, struct waiter *self)
{
    struct waiter *batch[ENROL_MAX_BATCH];
    c->leaders++;
    gather(c, self);
    size_t count = queue_take(c, batch);
    pthread_mutex_unlock(&c->lock);
    if (count > 0) { /* or another leader took all */
        histogram_observe(&c->batches, (int64_t)count);
        batch_run(c->db, batch, count);
    }
    pthread_mutex_lock(&c->lock);
    c->leaders--;
    for (size_t i = 0; i < count; i++) {
        batch[i]->done = true;
        if (batch[i] != self)
            pthread_cond_signal(&batch[i]->wake);
    }
    if (c->head && c->head != self)
        pthread_cond_signal(&c->head->wake);
}

/* With the lock held: whether a thread that waits shall lead. */
static bool leader_wanted(const struct committer *c, bool waited)
{
    if (!c->head || c->leaders >= ENROL_MAX_COMMITTERS)
        return false;
    return c->leaders == 0 || c->queued >= SECOND_LEADER_COUNT || waited;
}

/* With the lock held: true when that took longer than a waiter leaves it to one leader. Where there
 * are all leaders there may be, the first that ends wakes the next. */
static bool wait_long(struct committer *c, struct waiter *w)
{
    if (c->leaders >= ENROL_MAX_COMMITTERS)
        return pthread_cond_wait(&w->wake, &c->lock) == ETIMEDOUT;
    return wait_for(c, w, SECOND_LEADER_US);
}

enum err committer_record(struct committer *c, const struct enrol_record *record,
                          struct arena *arena, struct enrol_outcome *ret_outcome)
{
    struct waiter w = {.record = record, .arena = arena, .err = ERR_UNAVAILABLE};
    bool waited = false;
    clock_cond_init(&w.wake);
    pthread_mutex_lock(&c->lock);
    queue_put(c, &w);
    while (!w.done) {
        if (leader_wanted(c, waited))
            lead(c, &w);
        else
            waited = wait_long(c, &w);
    }
    pthread_mutex_unlock(&c->lock);
    pthread_cond_destroy(&w.wake);
    *ret_outcome = w.outcome;
    return w.err;
}
