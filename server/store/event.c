#include "store/event.h"

#include <stdlib.h>

static const struct stmt stmts[] = {
    {"event_sinks", "SELECT id, name, url FROM event_sink WHERE NOT paused ORDER BY id", 0},
    {"event_own", "SELECT event_own($1::bigint, $2)", 2},
    {"event_batch",
     "SELECT retry, xid, id, key, event, attempts, behind, matches, event->>'id'"
     " FROM event_batch($1::bigint, $2::int)",
     2},
    {"event_leave", "SELECT event_leave($1)", 1},
    {"event_done", "SELECT event_done($1::bigint, $2, $3::jsonb, $4::bigint, $5::bigint, $6)", 6},
};
const struct stmt_set event_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_SINKS, S_OWN, S_BATCH, S_LEAVE, S_DONE };

static bool is_true(const PGresult *r, int row, int column)
{
    return PQgetvalue(r, row, column)[0] == 't';
}

enum err event_sinks_load(struct db *db, struct arena *arena, struct event_sink **ret_sinks,
                          size_t *ret_count)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_SINKS], NULL, &r, NULL);
    if (e)
        return e;
    size_t count = (size_t)PQntuples(r);
    struct event_sink *sinks = arena_alloc(arena, (count + 1) * sizeof(*sinks));
    for (size_t i = 0; i < count && sinks; i++) {
        const char *url = db_value(r, (int)i, 2);
        sinks[i] = (struct event_sink){.id = atoll(PQgetvalue(r, (int)i, 0)),
                                       .name = arena_strdup(arena, PQgetvalue(r, (int)i, 1)),
                                       .url = url ? arena_strdup(arena, url) : NULL};
        if (!sinks[i].name || (url && !sinks[i].url))
            return ERR_NO_MEMORY;
    }
    *ret_sinks = sinks;
    *ret_count = count;
    return sinks ? ERR_OK : ERR_NO_MEMORY;
}

static enum err row_take(const PGresult *r, int i, struct arena *arena, struct event_row *ret)
{
    *ret = (struct event_row){
        .retry = arena_strdup(arena, PQgetvalue(r, i, 0)),
        .xid = atoll(PQgetvalue(r, i, 1)),
        .id = atoll(PQgetvalue(r, i, 2)),
        .key = arena_strdup(arena, PQgetvalue(r, i, 3)),
        .event = arena_strdup(arena, PQgetvalue(r, i, 4)),
        .attempts = arena_strdup(arena, PQgetvalue(r, i, 5)),
        .behind = is_true(r, i, 6),
        .matches = is_true(r, i, 7),
        .name = arena_strdup(arena, PQgetvalue(r, i, 8)),
    };
    return ret->name && ret->retry && ret->key && ret->event && ret->attempts ? ERR_OK
                                                                              : ERR_NO_MEMORY;
}

enum err event_batch_load(struct db *db, struct arena *arena, int64_t sink, const char *me,
                          struct event_row **ret_rows, size_t *ret_count)
{
    const char *number = arena_printf(arena, "%lld", (long long)sink);
    const char *own[] = {number, me};
    const char *params[] = {number, arena_printf(arena, "%d", EVENT_MAX_BATCH)};
    DB_RESULT owned = NULL;
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_OWN], own, &owned, NULL);
    if (!e && !is_true(owned, 0, 0))
        return ERR_CONFLICT;
    if (!e)
        e = db_query(db, &stmts[S_BATCH], params, &r, NULL);
    if (e)
        return e;
    size_t count = (size_t)PQntuples(r);
    struct event_row *rows = arena_alloc(arena, (count + 1) * sizeof(*rows));
    if (!rows)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < count && !e; i++)
        e = row_take(r, (int)i, arena, &rows[i]);
    *ret_rows = rows;
    *ret_count = count;
    return e;
}

enum err event_done(struct db *db, struct arena *arena, int64_t sink, const char *me,
                    const char *results, int64_t to_xid, int64_t to_id, const char *away)
{
    const char *params[] = {arena_printf(arena, "%lld", (long long)sink),
                            me,
                            results,
                            arena_printf(arena, "%lld", (long long)to_xid),
                            arena_printf(arena, "%lld", (long long)to_id),
                            away};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_DONE], params, &r, NULL);
    if (e)
        return e;
    return is_true(r, 0, 0) ? ERR_OK : ERR_CONFLICT;
}

enum err event_leave(struct db *db, const char *me)
{
    const char *params[] = {me};
    DB_RESULT r = NULL;
    return db_query(db, &stmts[S_LEAVE], params, &r, NULL);
}
