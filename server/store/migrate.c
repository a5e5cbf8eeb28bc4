#include "store/migrate.h"

#include <stdio.h>
#include <string.h>

#include "store/statements.h"

/* Any constant will do, as long as nobody else locks it. */
enum { MIGRATE_LOCK = 0x6d757374 };

static const struct stmt stmts[] = {
    {"migrate_lock", "SELECT pg_advisory_lock($1::bigint)", 1},
    {"migrate_unlock", "SELECT pg_advisory_unlock($1::bigint)", 1},
    {"migrate_table", "SELECT to_regclass('muster.schema_migration') IS NOT NULL", 0},
    {"migrate_state",
     "SELECT coalesce(max(version), 0), coalesce(max(oldest_binary), 0)"
     " FROM muster.schema_migration",
     0},
    {"migrate_note",
     "INSERT INTO muster.schema_migration (version, name, oldest_binary) VALUES ($1, $2, $3)", 3},
};
const struct stmt_set migrate_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_LOCK, S_UNLOCK, S_TABLE, S_STATE, S_NOTE };

/* The newest migration applied and the oldest binary that the schema bears; 0 and 0 when empty. */
static enum err state_load(struct db_conn *c, int *ret_version, int *ret_oldest)
{
    DB_RESULT there = NULL;
    enum err e = db_exec(c, &stmts[S_TABLE], NULL, &there);
    if (e)
        return e;
    *ret_version = 0;
    *ret_oldest = 0;
    if (strcmp(PQgetvalue(there, 0, 0), "t") != 0)
        return ERR_OK;
    DB_RESULT r = NULL;
    e = db_exec(c, &stmts[S_STATE], NULL, &r);
    if (e)
        return e;
    *ret_version = atoi(PQgetvalue(r, 0, 0));
    *ret_oldest = atoi(PQgetvalue(r, 0, 1));
    return ERR_OK;
}

static enum err note(struct db_conn *c, const struct migration *m)
{
    char version[12], oldest[12];
    snprintf(version, sizeof(version), "%d", m->version);
    snprintf(oldest, sizeof(oldest), "%d", m->oldest_binary);
    const char *params[] = {version, m->name, oldest};
    return db_exec(c, &stmts[S_NOTE], params, NULL);
}

static enum err command(struct db_conn *c, const char *sql, char *ret_message)
{
    PGresult *r = PQexec(db_raw(c), sql);
    ExecStatusType status = PQresultStatus(r);
    bool good = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
    if (!good)
        snprintf(ret_message, DB_MAX_MESSAGE_BYTES, "%s", PQresultErrorMessage(r));
    PQclear(r);
    return good ? ERR_OK : ERR_SYSTEM;
}

static enum err apply(struct db_conn *c, const struct migration *m, char *ret_message)
{
    enum err e = m->transaction ? command(c, "BEGIN", ret_message) : ERR_OK;
    if (!e)
        e = command(c, m->sql, ret_message);
    if (!e)
        e = note(c, m);
    if (!e && m->transaction)
        e = command(c, "COMMIT", ret_message);
    if (e && m->transaction)
        PQclear(PQexec(db_raw(c), "ROLLBACK"));
    return e;
}

static enum err apply_missing(struct db_conn *c, int *ret_applied, char *ret_message)
{
    int version = 0, oldest = 0;
    enum err e = state_load(c, &version, &oldest);
    for (size_t i = 0; i < migration_count && !e; i++) {
        if (migrations[i].version <= version)
            continue;
        e = apply(c, &migrations[i], ret_message);
        if (!e)
            ++*ret_applied;
    }
    return e;
}

enum err migrate_run(struct db *db, int *ret_applied, char *ret_message)
{
    struct db_conn *c = NULL;
    int applied = 0;
    char lock[24];
    snprintf(lock, sizeof(lock), "%d", MIGRATE_LOCK);
    const char *params[] = {lock};
    enum err e = db_acquire(db, &c);
    if (e) {
        snprintf(ret_message, DB_MAX_MESSAGE_BYTES, "no connection to PostgreSQL");
        return e;
    }
    ret_message[0] = '\0';
    e = db_exec(c, &stmts[S_LOCK], params, NULL);
    if (!e) {
        e = apply_missing(c, &applied, ret_message);
        enum err unlock = db_exec(c, &stmts[S_UNLOCK], params, NULL);
        e = e ? e : unlock;
    }
    if (e && ret_message[0] == '\0')
        snprintf(ret_message, DB_MAX_MESSAGE_BYTES, "%s", db_message(c));
    db_release(db, c);
    *ret_applied = applied;
    return e;
}

static enum err judge(int version, int oldest, char *ret_message)
{
    int built_for = migrations[migration_count - 1].version;
    if (version < built_for) {
        snprintf(ret_message, DB_MAX_MESSAGE_BYTES,
                 "the schema is at %d, this binary needs %d: run musterd migrate", version,
                 built_for);
        return ERR_CONFLICT;
    }
    if (oldest > built_for) {
        snprintf(ret_message, DB_MAX_MESSAGE_BYTES,
                 "the schema needs a binary built for %d or newer, this one is built for %d",
                 oldest, built_for);
        return ERR_CONFLICT;
    }
    return ERR_OK;
}

enum err migrate_check(struct db *db, int *ret_version, char *ret_message)
{
    struct db_conn *c = NULL;
    enum err e = db_acquire(db, &c);
    if (e) {
        snprintf(ret_message, DB_MAX_MESSAGE_BYTES, "no connection to PostgreSQL");
        return e;
    }
    int version = 0, oldest = 0;
    e = state_load(c, &version, &oldest);
    snprintf(ret_message, DB_MAX_MESSAGE_BYTES, "%s", db_message(c));
    db_release(db, c);
    if (e)
        return e;
    *ret_version = version;
    return judge(version, oldest, ret_message);
}
