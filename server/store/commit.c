/* The committer: leader/follower group commit of enrolments. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json_out.h"
#include "base/text.h"
#include "store/commit.h"

static const struct stmt batch_stmt = {
    "enrol_batch",
    "SELECT ord, code, detail, proven, certificate, state, answer FROM enrol_batch($1::jsonb)", 1};
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

static void write_origin(struct buf *b, const struct enrol_record *r)
{
    json_text(b, "request_id", r->request_id);
    json_int(b, "asked_us", r->asked_us);
    json_text(b, "protocol", r->protocol);
    json_text(b, "operation", r->operation);
    json_text(b, "credential", r->credential);
    json_text(b, "source", r->source);
    json_int(b, "product_id", r->product_id);
    json_int(b, "template_id", r->template_id);
    json_int(b, "template_version", r->template_version);
    json_text(b, "template_label", r->template_label);
    json_text(b, "serial", r->serial);
    json_text(b, "serial_canonical", r->serial_canonical);
}

/* bytea as PostgreSQL reads it from JSON text; absent values are left out. */
static void write_bytea(struct buf *b, const char *key, struct bytes value)
{
    if (!value.data)
        return;
    json_key(b, key);
    buf_add_text(b, "\"\\\\x");
    text_add_hex(b, value);
    buf_add_char(b, '"');
}

static void write_claim(struct buf *b, const struct enrol_record *r)
{
    if (r->claim_id == 0)
        return;
    json_int(b, "claim_id", r->claim_id);
    json_text(b, "claim_name", r->claim_name);
    json_bool(b, "claim_late", r->claim_late);
    json_text(b, "client_id", r->client_id);
    write_bytea(b, "ownership_hash", r->ownership_hash);
    write_bytea(b, "parameters_hash", r->parameters_hash);
}

static void write_certificates(struct buf *b, const struct enrol_record *r)
{
    write_bytea(b, "token_hash", r->token_hash);
    write_claim(b, r);
    write_bytea(b, "peer_fingerprint", r->peer_fingerprint);
    write_bytea(b, "peer_der", r->peer_der);
    write_bytea(b, "peer_serial_number", r->peer_serial_number);
    write_bytea(b, "peer_spki", r->peer_spki);
    json_int(b, "peer_ca", r->peer_ca);
    json_int(b, "peer_not_before", r->peer_not_before);
    json_int(b, "peer_not_after", r->peer_not_after);
    write_bytea(b, "spki", r->spki);
    write_bytea(b, "fingerprint", r->fingerprint);
    write_bytea(b, "certificate", r->certificate);
    write_bytea(b, "serial_number", r->serial_number);
    json_int(b, "issuer_id", r->issuer_id);
    json_int(b, "not_before", r->not_before);
    json_int(b, "not_after", r->not_after);
}

static void write_registration(struct buf *b, const struct enrol_record *r)
{
    json_text(b, "thing_name", r->thing_name);
    json_text(b, "thing_type", r->thing_type);
    json_text(b, "billing_group", r->billing_group);
    json_raw(b, "attributes", r->attributes);
    json_text(b, "attributes_override", r->attributes_override);
    json_text(b, "type_override", r->type_override);
    json_text(b, "groups_override", r->groups_override);
    json_raw(b, "groups", r->groups);
    json_raw(b, "policies", r->policies);
    json_raw(b, "configuration", r->configuration);
    json_bool(b, "inactive", r->inactive);
    json_bool(b, "allowlist_required", r->allowlist_required);
    json_bool(b, "replace", r->replace);
    json_text(b, "verify", r->verify);
    json_int(b, "verify_within_s", r->verify_within_s);
    json_int(b, "renew_before_s", r->renew_before_s);
    json_int(b, "grace_s", r->grace_s);
    json_int(b, "replay_s", r->replay_s);
    json_bool(b, "approval", r->approval);
    json_bool(b, "server_key", r->server_key);
    if (r->own)
        json_bool(b, "own", true);
    json_raw(b, "steps", r->steps);
}

static void write_record(struct buf *b, const struct enrol_record *r, size_t ord)
{
    json_begin_object(b);
    json_int(b, "ord", (int64_t)ord);
    write_origin(b, r);
    write_certificates(b, r);
    write_registration(b, r);
    json_end_object(b);
}

static enum err outcome_take(const PGresult *r, int row, struct waiter *w)
{
    const char *certificate = db_value(r, row, 4);
    const char *state = db_value(r, row, 5);
    const char *detail = db_value(r, row, 2);
    const char *answer = db_value(r, row, 6);
    struct enrol_outcome o = {
        .code = arena_strdup(w->arena, PQgetvalue(r, row, 1)),
        .detail = arena_strdup(w->arena, detail ? detail : ""),
        .proven = PQgetvalue(r, row, 3)[0] == 't',
        .state = state ? arena_strdup(w->arena, state) : NULL,
        .answer = answer ? arena_strdup(w->arena, answer) : NULL,
    };
    if (!o.code || !o.detail || (state && !o.state) || (answer && !o.answer))
        return ERR_NO_MEMORY;
    enum err e = certificate ? db_parse_bytea(w->arena, certificate, &o.certificate) : ERR_OK;
    if (!e)
        w->outcome = o;
    return e;
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
        batch[ord]->err = outcome_take(r, row, batch[ord]);
    }
    return ERR_OK;
}

static enum err batch_record(struct db *db, struct waiter **batch, size_t count)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, count * ENROL_MAX_RECORD_BYTES);
    json_begin_array(&b);
    for (size_t i = 0; i < count; i++)
        write_record(&b, batch[i]->record, i);
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

/* Records a batch; where one row spoils it for all, each goes alone. */
static void batch_run(struct db *db, struct waiter **batch, size_t count)
{
    enum err e = batch_record(db, batch, count);
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
