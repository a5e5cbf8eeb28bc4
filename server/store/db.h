/*
 * PostgreSQL: a small pool of connections, prepared statements, a transaction runner.
 * A connection is used by one thread at a time and never changes thread while it is held.
 * Threads: the pool is for any thread; a connection for its holder only.
 */
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/histogram.h"

enum { DB_MAX_PARAMS = 16, DB_MAX_MESSAGE_BYTES = 512 };

/* Text values, borrowed for the life of the pool but for the password, which is copied; NULL where
 * the server's or libpq's default is to be used. */
struct db_config {
    const char *host;
    const char *port;
    const char *name;
    const char *user;
    const char *password;
    const char *sslmode;
    unsigned pool_size;         /* connections, 1..64 */
    unsigned connect_timeout_s; /* of one attempt */
    unsigned statement_timeout_ms;
    unsigned acquire_timeout_ms; /* how long a caller waits for a connection */
};

/* A statement; lives beside the function that uses it, listed in store/statements.c. Prepared
 * on a connection at its first use there. Parameters and results are text. */
struct stmt {
    const char *name; /* unique */
    const char *sql;
    int params;
};

struct db;
struct db_conn;

/* Starts without connecting: connections are made when they are needed. */
enum err db_new(const struct db_config *config, struct db **ret_db) MUST_CHECK;
void db_free(struct db *db);

/* Takes a connection, ERR_UNAVAILABLE when none came free or the server is away. */
enum err db_acquire(struct db *db, struct db_conn **ret_conn) MUST_CHECK;
void db_release(struct db *db, struct db_conn *conn);

static inline void db_result_done(PGresult **r)
{
    PQclear(*r);
}

/* Scope-bound result of a statement. */
#define DB_RESULT _cleanup_(db_result_done) PGresult *

/* Connections in use, and how many there may be. */
unsigned db_busy(struct db *db);
unsigned db_size(const struct db *db);

enum db_kind { DB_KIND_ENROL_BATCH, DB_KIND_SEEN, DB_KIND_DESK, DB_KIND_OTHER, DB_KIND_COUNT };

/* What the pool counted since it was made; its cells are atomic. */
struct db_stats {
    struct histogram wait; /* for a free connection */
    struct histogram statements[DB_KIND_COUNT];
    atomic_uint_fast64_t connect_failures;
};

/* Borrowed for the life of the pool. */
const struct db_stats *db_stats(const struct db *db);
const char *db_kind_name(enum db_kind kind);

/*
 * Runs one statement. ERR_DENIED a refusal raised by muster.refuse: db_message has the fault's
 * code, a line end and the detail; ERR_CONFLICT unique violation; ERR_NOT_FOUND foreign key;
 * ERR_INVALID a CHECK, a bad value or a trigger's refusal; ERR_UNAVAILABLE connection lost, server
 * shutting down or read-only, serialisation failure or deadlock (the runner repeats these);
 * ERR_SYSTEM the rest. db_message tells more. NULL params are SQL NULL.
 */
enum err db_exec(struct db_conn *conn, const struct stmt *stmt, const char *const *params,
                 PGresult **ret_result) MUST_CHECK;

/* What PostgreSQL said of the last failure on this connection; "" when nothing. */
const char *db_message(const struct db_conn *conn);

/* The libpq connection, for COPY and migrations; borrowed. */
PGconn *db_raw(struct db_conn *conn);

/* The body of a transaction: may be called again after a deadlock, so it must not have effects
 * of its own, and treats what ctx points at as output only. */
typedef enum err (*db_body)(struct db_conn *conn, void *ctx);

/* Runs body between BEGIN and COMMIT; rolls back when it fails; repeats it at most 4 times on
 * serialisation failures and deadlocks, and when the connection was found dead at BEGIN. A
 * connection lost during COMMIT is ERR_UNAVAILABLE: whether it committed is not known. ret_message
 * (may be NULL, DB_MAX_MESSAGE_BYTES) tells why. */
enum err db_transaction(struct db *db, db_body body, void *ctx, char *ret_message) MUST_CHECK;

/* One statement outside a transaction, on a connection of the pool, repeated like the above and
 * once more when the connection was found dead. The statement must bear being run twice. */
enum err db_query(struct db *db, const struct stmt *stmt, const char *const *params,
                  PGresult **ret_result, char *ret_message) MUST_CHECK;

/* The value of a column, NULL for SQL NULL; borrowed from the result. */
static inline const char *db_value(const PGresult *r, int row, int column)
{
    return PQgetisnull(r, row, column) ? NULL : PQgetvalue(r, row, column);
}

/* bytea in its text form, "\x0123..."; NULL when memory ran out. data NULL gives NULL. */
char *db_bytea(struct arena *arena, const void *data, size_t len) MUST_CHECK;

/* The bytes of a bytea column's text, in the arena. ERR_INVALID when it is not hex form. */
enum err db_parse_bytea(struct arena *arena, const char *text, struct bytes *ret) MUST_CHECK;
