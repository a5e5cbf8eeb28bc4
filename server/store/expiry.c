#include "store/expiry.h"

#include <inttypes.h>
#include <stdio.h>

static const struct stmt stmts[] = {
    {"expiry_tell", "SELECT e FROM expiry_tell($1::bigint) e", 1},
};
const struct stmt_set expiry_statements = {stmts, ARRAY_LEN(stmts)};

enum { NUMBER_BYTES = 24 };

enum err expiry_tell(struct db *db, int64_t server_ends_s, struct arena *arena,
                     const char *const **ret_events, size_t *ret_count)
{
    char ends[NUMBER_BYTES];
    const char *params[] = {ends};
    DB_RESULT r = NULL;
    snprintf(ends, sizeof(ends), "%" PRId64, server_ends_s);
    enum err e = db_query(db, &stmts[0], params, &r, NULL);
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
