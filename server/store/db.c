#include "store/db.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/secret.h"
#include "base/text.h"

enum { MAX_PREPARED = 256, MAX_POOL = 64, MAX_TRIES = 5, PATIENCE_MS = 2000 };

struct db_conn {
    PGconn *pg; /* NULL: not connected */
    struct db_stats *stats;
    const struct stmt *prepared[MAX_PREPARED];
    size_t prepared_count;
    char sqlstate[6];
    char message[DB_MAX_MESSAGE_BYTES];
    unsigned generation;
    bool busy;
    int64_t patience_us; /* with one statement; 0: endless */
    bool timed_out;      /* the server did not answer in time; the connection was given up */
};

struct db {
    struct db_config config;
    char *password; /* owned; NULL: none */
    char connect_timeout[12];
    char options[128];
    pthread_mutex_t lock;
    pthread_cond_t freed;
    unsigned generation; /* raised when a connection is lost: its siblings are suspect too */
    struct db_conn conns[MAX_POOL];
    struct db_stats stats;
};

static const struct {
    const char *name;
    const char *prefix; /* of the statements' names */
} kinds[] = {
    [DB_KIND_ENROL_BATCH] = {"enrol_batch", "enrol_batch"},
    [DB_KIND_SEEN] = {"seen", "enrol_seen"},
    [DB_KIND_DESK] = {"desk", "desk_"},
    [DB_KIND_OTHER] = {"other", ""},
};

const char *db_kind_name(enum db_kind kind)
{
    return kinds[kind].name;
}

const struct db_stats *db_stats(const struct db *db)
{
    return &db->stats;
}

unsigned db_size(const struct db *db)
{
    return db->config.pool_size;
}

static void stats_init(struct db *db)
{
    db->stats.wait.scale = &histogram_time;
    for (int i = 0; i < DB_KIND_COUNT; i++)
        db->stats.statements[i].scale = &histogram_time;
    for (int i = 0; i < MAX_POOL; i++)
        db->conns[i].stats = &db->stats;
}

static void notice_drop(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result;
}

enum err db_new(const struct db_config *config, struct db **ret_db)
{
    if (config->pool_size < 1 || config->pool_size > MAX_POOL)
        return ERR_INVALID;
    struct db *db = calloc(1, sizeof(*db));
    if (!db)
        return ERR_NO_MEMORY;
    db->config = *config;
    stats_init(db);
    db->password = config->password ? strdup(config->password) : NULL;
    if (config->password && !db->password) {
        free(db);
        return ERR_NO_MEMORY;
    }
    db->config.password = db->password;
    snprintf(db->connect_timeout, sizeof(db->connect_timeout), "%u", config->connect_timeout_s);
    snprintf(db->options, sizeof(db->options),
             "-c search_path=muster -c statement_timeout=%u -c client_min_messages=warning"
             " -c jit=off", /* a plan without an index seems dear where sequential scans are off */
             config->statement_timeout_ms);
    clock_cond_init(&db->freed);
    pthread_mutex_init(&db->lock, NULL);
    *ret_db = db;
    return ERR_OK;
}

void db_free(struct db *db)
{
    if (!db)
        return;
    for (unsigned i = 0; i < db->config.pool_size; i++)
        PQfinish(db->conns[i].pg);
    if (db->password)
        secret_cleanse(db->password, strlen(db->password));
    free(db->password);
    pthread_cond_destroy(&db->freed);
    pthread_mutex_destroy(&db->lock);
    free(db);
}

static void conn_note(struct db_conn *c, const char *sqlstate, const char *message)
{
    snprintf(c->sqlstate, sizeof(c->sqlstate), "%s", sqlstate ? sqlstate : "");
    snprintf(c->message, sizeof(c->message), "%s", message ? message : "");
    c->message[strcspn(c->message, "\n")] = '\0';
}

static void conn_close(struct db_conn *c)
{
    PQfinish(c->pg);
    c->pg = NULL;
    c->prepared_count = 0;
}

static enum err conn_open(const struct db *db, struct db_conn *c)
{
    const struct {
        const char *key;
        const char *value;
    } settings[] = {
        {"host", db->config.host},         {"port", db->config.port},
        {"dbname", db->config.name},       {"user", db->config.user},
        {"password", db->config.password}, {"sslmode", db->config.sslmode},
        {"options", db->options},          {"connect_timeout", db->connect_timeout},
        {"application_name", "musterd"},   {"target_session_attrs", "read-write"},
        {"keepalives_idle", "15"},         {"keepalives_interval", "5"},
        {"keepalives_count", "3"},         {"tcp_user_timeout", "15000"},
    };
    const char *keys[ARRAY_LEN(settings) + 1] = {0}, *values[ARRAY_LEN(settings) + 1] = {0};
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        keys[i] = settings[i].key;
        values[i] = settings[i].value;
    }
    c->timed_out = false;
    c->pg = PQconnectdbParams(keys, values, 0);
    c->prepared_count = 0;
    if (!c->pg || PQstatus(c->pg) != CONNECTION_OK) {
        atomic_fetch_add_explicit(&c->stats->connect_failures, 1, memory_order_relaxed);
        conn_note(c, "08006", c->pg ? PQerrorMessage(c->pg) : "out of memory");
        conn_close(c);
        return ERR_UNAVAILABLE;
    }
    PQsetNoticeReceiver(c->pg, notice_drop, NULL);
    return ERR_OK;
}

/* With the lock held: an idle slot, preferring one that is connected. */
static struct db_conn *pool_pick(struct db *db)
{
    struct db_conn *idle = NULL;
    for (unsigned i = 0; i < db->config.pool_size; i++) {
        struct db_conn *c = &db->conns[i];
        if (c->busy)
            continue;
        if (c->pg)
            return c;
        if (!idle)
            idle = c;
    }
    return idle;
}

enum err db_acquire(struct db *db, struct db_conn **ret_conn)
{
    struct timespec at = clock_deadline((int64_t)db->config.acquire_timeout_ms * 1000);
    int64_t began_us = clock_mono_us();
    pthread_mutex_lock(&db->lock);
    struct db_conn *c = pool_pick(db);
    int rc = 0;
    while (!c && rc == 0) {
        rc = pthread_cond_timedwait(&db->freed, &db->lock, &at);
        c = pool_pick(db);
    }
    if (c)
        c->busy = true;
    unsigned generation = db->generation;
    pthread_mutex_unlock(&db->lock);
    histogram_observe(&db->stats.wait, clock_mono_us() - began_us);
    if (!c)
        return ERR_UNAVAILABLE;
    if (c->generation != generation)
        conn_close(c);
    c->generation = generation;
    c->timed_out = false;
    if (db->config.statement_timeout_ms > 0)
        c->patience_us = (int64_t)(db->config.statement_timeout_ms + PATIENCE_MS) * 1000;
    enum err e = c->pg ? ERR_OK : conn_open(db, c);
    if (e) {
        db_release(db, c);
        return e;
    }
    *ret_conn = c;
    return ERR_OK;
}

void db_release(struct db *db, struct db_conn *c)
{
    bool lost = c->timed_out || (c->pg && PQstatus(c->pg) != CONNECTION_OK);
    if (lost || (c->pg && PQtransactionStatus(c->pg) != PQTRANS_IDLE))
        conn_close(c);
    pthread_mutex_lock(&db->lock);
    if (lost && c->generation == db->generation)
        db->generation++;
    c->busy = false;
    pthread_cond_signal(&db->freed);
    pthread_mutex_unlock(&db->lock);
}

unsigned db_busy(struct db *db)
{
    unsigned n = 0;
    pthread_mutex_lock(&db->lock);
    for (unsigned i = 0; i < db->config.pool_size; i++)
        n += db->conns[i].busy;
    pthread_mutex_unlock(&db->lock);
    return n;
}

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static enum err classify(const struct db_conn *c)
{
    const char *s = c->sqlstate;
    if (PQstatus(c->pg) != CONNECTION_OK || s[0] == '\0')
        return ERR_UNAVAILABLE;
    if (has_prefix(s, "MU"))
        return ERR_DENIED;
    if (has_prefix(s, "23505"))
        return ERR_CONFLICT;
    if (has_prefix(s, "23503"))
        return ERR_NOT_FOUND;
    if (has_prefix(s, "23") || has_prefix(s, "22"))
        return ERR_INVALID;
    if (has_prefix(s, "40") || has_prefix(s, "57") || has_prefix(s, "53") || has_prefix(s, "08") ||
        has_prefix(s, "25006"))
        return ERR_UNAVAILABLE;
    return ERR_SYSTEM;
}

/* A refusal of the schema's functions: the fault's code, a line end, the detail. */
static void refusal_note(struct db_conn *c, const PGresult *r)
{
    const char *code = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(r, PG_DIAG_MESSAGE_DETAIL);
    snprintf(c->message, sizeof(c->message), "%s\n%s", code ? code : "", detail ? detail : "");
}

/* Takes the result over when it is good; otherwise notes the reason and clears it. */
static enum err conn_judge(struct db_conn *c, PGresult *r, PGresult **ret_result)
{
    ExecStatusType status = PQresultStatus(r);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
        conn_note(c, "", "");
        if (ret_result)
            *ret_result = r;
        else
            PQclear(r);
        return ERR_OK;
    }
    const char *sqlstate = r ? PQresultErrorField(r, PG_DIAG_SQLSTATE) : NULL;
    const char *silence = c->timed_out ? "PostgreSQL does not answer" : PQerrorMessage(c->pg);
    conn_note(c, sqlstate, r ? PQresultErrorMessage(r) : silence);
    if (sqlstate && has_prefix(sqlstate, "MU"))
        refusal_note(c, r);
    PQclear(r);
    return classify(c);
}

/* Waits until an answer can be read. False: the time is over, or the connection is. */
static bool answer_wait(struct db_conn *c, int64_t deadline_us)
{
    while (PQisBusy(c->pg)) {
        int64_t left_us = deadline_us - clock_mono_us();
        struct pollfd fd = {.fd = PQsocket(c->pg), .events = POLLIN};
        if (deadline_us > 0 && left_us <= 0)
            return false;
        int rc = poll(&fd, 1, deadline_us > 0 ? (int)(left_us / 1000) + 1 : -1);
        if (rc < 0 && errno != EINTR)
            return false;
        if (rc > 0 && !PQconsumeInput(c->pg))
            return true; /* PQgetResult tells what is wrong */
    }
    return true;
}

/* The last result of what was sent. The server cancels statements itself; one that hangs, or a
 * network that swallows, is given up a little later, and the connection with it. */
static PGresult *result_wait(struct db_conn *c)
{
    int64_t deadline_us = c->patience_us > 0 ? clock_mono_us() + c->patience_us : 0;
    PGresult *last = NULL, *r = NULL;
    while (answer_wait(c, deadline_us)) {
        r = PQgetResult(c->pg);
        if (!r)
            return last;
        PQclear(last);
        last = r;
    }
    PQclear(last);
    conn_close(c);
    c->timed_out = true;
    return NULL;
}

static bool conn_has_prepared(const struct db_conn *c, const struct stmt *stmt)
{
    for (size_t i = 0; i < c->prepared_count; i++) {
        if (c->prepared[i] == stmt)
            return true;
    }
    return false;
}

static enum err conn_prepare(struct db_conn *c, const struct stmt *stmt)
{
    if (conn_has_prepared(c, stmt))
        return ERR_OK;
    if (c->prepared_count == MAX_PREPARED)
        return ERR_SYSTEM;
    int sent = PQsendPrepare(c->pg, stmt->name, stmt->sql, stmt->params, NULL);
    PGresult *r = sent ? result_wait(c) : NULL;
    enum err e = conn_judge(c, r, NULL);
    if (!e)
        c->prepared[c->prepared_count++] = stmt;
    return e;
}

static enum db_kind kind_of(const struct stmt *stmt)
{
    int kind = 0;
    while (!has_prefix(stmt->name, kinds[kind].prefix))
        kind++;
    return (enum db_kind)kind;
}

static enum err exec(struct db_conn *c, const struct stmt *stmt, const char *const *params,
                     PGresult **ret_result)
{
    enum err e = conn_prepare(c, stmt);
    if (e)
        return e;
    int sent = PQsendQueryPrepared(c->pg, stmt->name, stmt->params, params, NULL, NULL, 0);
    PGresult *r = sent ? result_wait(c) : NULL;
    return conn_judge(c, r, ret_result);
}

enum err db_exec(struct db_conn *c, const struct stmt *stmt, const char *const *params,
                 PGresult **ret_result)
{
    int64_t began_us = clock_mono_us();
    enum err e = exec(c, stmt, params, ret_result);
    histogram_observe(&c->stats->statements[kind_of(stmt)], clock_mono_us() - began_us);
    return e;
}

const char *db_message(const struct db_conn *c)
{
    return c->message;
}

PGconn *db_raw(struct db_conn *c)
{
    return c->pg;
}

static enum err conn_command(struct db_conn *c, const char *sql)
{
    return conn_judge(c, PQsendQuery(c->pg, sql) ? result_wait(c) : NULL, NULL);
}

/* Worth another try: the server undid it and said so. */
static bool is_transient(const struct db_conn *c)
{
    return has_prefix(c->sqlstate, "40001") || has_prefix(c->sqlstate, "40P01");
}

static void message_copy(const struct db_conn *c, char *ret_message)
{
    if (ret_message)
        memcpy(ret_message, c->message, DB_MAX_MESSAGE_BYTES);
}

static void message_set(char *ret_message, const char *text)
{
    if (ret_message)
        snprintf(ret_message, DB_MAX_MESSAGE_BYTES, "%s", text);
}

/* One try of a transaction. A refusal of the body keeps its own error. */
static enum err transaction_try(struct db_conn *c, db_body body, void *ctx, char *ret_message,
                                bool *ret_again)
{
    *ret_again = false;
    enum err e = conn_command(c, "BEGIN");
    if (e) {
        /* a connection that had died while it was idle: nothing was asked yet */
        *ret_again = PQstatus(c->pg) != CONNECTION_OK && !c->timed_out;
        message_copy(c, ret_message);
        return e;
    }
    e = body(c, ctx);
    if (!e)
        e = conn_command(c, "COMMIT");
    message_copy(c, ret_message);
    if (!e || !c->pg || PQstatus(c->pg) != CONNECTION_OK)
        return e;
    *ret_again = is_transient(c);
    PQclear(PQexec(c->pg, "ROLLBACK"));
    return e;
}

enum err db_transaction(struct db *db, db_body body, void *ctx, char *ret_message)
{
    message_set(ret_message, "");
    enum err e = ERR_UNAVAILABLE;
    bool again = true;
    for (int i = 0; i < MAX_TRIES && again; i++) {
        struct db_conn *c = NULL;
        e = db_acquire(db, &c);
        if (e) {
            message_set(ret_message, "no connection to PostgreSQL");
            return e;
        }
        e = transaction_try(c, body, ctx, ret_message, &again);
        db_release(db, c);
    }
    return e;
}

enum err db_query(struct db *db, const struct stmt *stmt, const char *const *params,
                  PGresult **ret_result, char *ret_message)
{
    enum err e = ERR_UNAVAILABLE;
    message_set(ret_message, "no connection to PostgreSQL");
    bool reconnected = false;
    for (int i = 0; i < MAX_TRIES; i++) {
        struct db_conn *c = NULL;
        e = db_acquire(db, &c);
        if (e)
            return e;
        e = db_exec(c, stmt, params, ret_result);
        bool lost = PQstatus(c->pg) != CONNECTION_OK;
        bool again = e && (is_transient(c) || (lost && !reconnected && !c->timed_out));
        reconnected = reconnected || lost;
        message_copy(c, ret_message);
        db_release(db, c);
        if (!again)
            return e;
    }
    return e;
}

char *db_bytea(struct arena *arena, const void *data, size_t len)
{
    if (!data)
        return NULL;
    const char *hex = text_hex(arena, bytes_of(data, len));
    return hex ? arena_printf(arena, "\\x%s", hex) : NULL;
}

enum err db_parse_bytea(struct arena *arena, const char *text, struct bytes *ret)
{
    if (text[0] != '\\' || text[1] != 'x')
        return ERR_INVALID;
    size_t len = strlen(text + 2) / 2;
    uint8_t *data = arena_alloc(arena, len + 1);
    if (!data)
        return ERR_NO_MEMORY;
    enum err e = text_parse_hex(text + 2, data, len);
    if (e)
        return e;
    *ret = bytes_of(data, len);
    return ERR_OK;
}
