#include "store/expiry.h"

#include <inttypes.h>
#include <stdio.h>

/* A first look at a large registry takes longer than a statement may otherwise. */
static const struct stmt stmts[] = {
    {"expiry_patience", "SELECT set_config('statement_timeout', '300000', true)", 0},
    {"expiry_tell", "SELECT e FROM expiry_tell($1::bigint, $2::bigint) e", 2},
};
const struct stmt_set expiry_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_PATIENCE, S_TELL };
enum { NUMBER_BYTES = 24 };

struct telling {
    const char *server_ends;
    const char *ra_ends;
    PGresult *rows;
};

static enum err tell(struct db_conn *conn, void *ctx)
{
    struct telling *t = ctx;
    const char *params[] = {t->server_ends, t->ra_ends};
    DB_RESULT patience = NULL;
    db_result_done(&t->rows);
    t->rows = NULL;
    enum err e = db_exec(conn, &stmts[S_PATIENCE], NULL, &patience);
    return e ? e : db_exec(conn, &stmts[S_TELL], params, &t->rows);
}

enum err expiry_tell(struct db *db, int64_t server_ends_s, int64_t ra_ends_s, struct arena *arena,
                     const char *const **ret_events, size_t *ret_count)
{
    char server_ends[NUMBER_BYTES], ra_ends[NUMBER_BYTES];
    struct telling telling = {server_ends, ra_ends, NULL};
    snprintf(server_ends, sizeof(server_ends), "%" PRId64, server_ends_s);
    snprintf(ra_ends, sizeof(ra_ends), "%" PRId64, ra_ends_s);
    enum err e = db_transaction(db, tell, &telling, NULL);
    DB_RESULT r = telling.rows;
    if (e)
        return e;
    size_t count = (size_t)PQntuples(r);
    const char **events = arena_alloc(arena, (count + 1) * sizeof(*events));
    for (size_t i = 0; events && i < count; i++) {
        events[i] = arena_strdup(arena, PQgetvalue(r, (int)i, 0));
        if (!events[i])
            return ERR_NO_MEMORY;
    }
    if (!events)
        return ERR_NO_MEMORY;
    *ret_events = events;
    *ret_count = count;
    return ERR_OK;
}
