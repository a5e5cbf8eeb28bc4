#include "store/journal.h"

#include <stdlib.h>

enum { DUE_AT_ONCE = 500, S_EPOCH = 0, S_CONFIGURATION, S_BEFORE, S_WRITER, S_DUE };

static const struct stmt stmts[] = {
    {"journal_epoch", "SELECT epoch FROM registry_epoch", 0},
    {"journal_configuration", "SELECT e FROM journal_configuration() e", 0},
    {"journal_issued", "SELECT journal_issued($1, $2)", 2},
    {"journal_writer", "SELECT journal_writer_seen($1)", 1},
    {"journal_due", "SELECT e FROM journal_due_take(500) e", 0},
};
const struct stmt_set journal_statements = {stmts, ARRAY_LEN(stmts)};

/* The rows of a result, borrowed from it. */
static enum err rows_take(const PGresult *r, struct arena *arena, const char ***ret_rows,
                          size_t *ret_count)
{
    size_t count = (size_t)PQntuples(r);
    const char **rows = arena_alloc(arena, (count + 1) * sizeof(*rows));
    if (!rows)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        rows[i] = PQgetvalue(r, (int)i, 0);
    *ret_rows = rows;
    *ret_count = count;
    return ERR_OK;
}

enum err journal_configuration(struct db *db, struct arena *arena, int64_t *ret_epoch,
                               const char ***ret_entries, size_t *ret_count)
{
    DB_RESULT r = NULL;
    DB_RESULT x = NULL;
    const char **rows = NULL;
    size_t count = 0;
    enum err e = db_query(db, &stmts[S_EPOCH], NULL, &x, NULL);
    if (!e)
        e = db_query(db, &stmts[S_CONFIGURATION], NULL, &r, NULL);
    if (!e)
        e = rows_take(r, arena, &rows, &count);
    for (size_t i = 0; i < count && !e; i++) {
        rows[i] = arena_strdup(arena, rows[i]);
        e = rows[i] ? ERR_OK : ERR_NO_MEMORY;
    }
    if (e)
        return e;
    *ret_epoch = atoll(PQgetvalue(x, 0, 0));
    *ret_entries = rows;
    *ret_count = count;
    return ERR_OK;
}

enum err journal_issued_before(struct db *db, struct bytes fingerprint, struct bytes ownership,
                               struct arena *arena, const char **ret_entry)
{
    const char *params[] = {
        fingerprint.len > 0 ? db_bytea(arena, fingerprint.data, fingerprint.len) : NULL,
        ownership.len > 0 ? db_bytea(arena, ownership.data, ownership.len) : NULL};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_BEFORE], params, &r, NULL);
    if (e)
        return e;
    const char *text = db_value(r, 0, 0);
    const char *entry = text ? arena_strdup(arena, text) : NULL;
    if (text && !entry)
        return ERR_NO_MEMORY;
    *ret_entry = entry;
    return ERR_OK;
}

enum err journal_writer_seen(struct db *db, const char *replica)
{
    const char *params[] = {replica};
    DB_RESULT r = NULL;
    return db_query(db, &stmts[S_WRITER], params, &r, NULL);
}

struct due {
    journal_write_fn write;
    void *ctx;
    size_t count;
};

/* What is written twice, because the commit was lost or repeated, is recovered once. */
static enum err due_write(struct db_conn *conn, void *ctx)
{
    struct due *d = ctx;
    _cleanup_(arena_donep) struct arena arena;
    const char **rows = NULL;
    DB_RESULT r = NULL;
    arena_init(&arena, (DUE_AT_ONCE + 1) * sizeof(*rows) + 4096);
    enum err e = db_exec(conn, &stmts[S_DUE], NULL, &r);
    if (!e)
        e = rows_take(r, &arena, &rows, &d->count);
    return e || d->count == 0 ? e : d->write(d->ctx, rows, d->count);
}

enum err journal_due_write(struct db *db, journal_write_fn write, void *ctx, size_t *ret_count)
{
    struct due d = {.write = write, .ctx = ctx};
    enum err e = db_transaction(db, due_write, &d, NULL);
    *ret_count = d.count;
    return e;
}
