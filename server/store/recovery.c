#include "store/recovery.h"

static const struct stmt stmts[] = {
    {"recover_begin", "SELECT recover_begin()", 0},
    {"recover_cas", "SELECT certificate FROM ca ORDER BY id", 0},
    {"recover_lines", "SELECT recover_lines($1::jsonb)", 1},
    {"recover_apply", "SELECT recover_apply($1::boolean)", 1},
};
const struct stmt_set recovery_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_BEGIN, S_CAS, S_LINES, S_APPLY };

enum err recovery_begin(struct db_conn *conn)
{
    return db_exec(conn, &stmts[S_BEGIN], NULL, NULL);
}

enum err recovery_cas_load(struct db_conn *conn, struct arena *arena, struct bytes **ret_ders,
                           size_t *ret_count)
{
    DB_RESULT r = NULL;
    enum err e = db_exec(conn, &stmts[S_CAS], NULL, &r);
    if (e)
        return e;
    size_t count = (size_t)PQntuples(r);
    struct bytes *ders = arena_alloc(arena, (count + 1) * sizeof(*ders));
    if (!ders)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < count && !e; i++)
        e = db_parse_bytea(arena, PQgetvalue(r, (int)i, 0), &ders[i]);
    *ret_ders = ders;
    *ret_count = count;
    return e;
}

enum err recovery_stage(struct db_conn *conn, const char *json)
{
    const char *params[] = {json};
    return db_exec(conn, &stmts[S_LINES], params, NULL);
}

enum err recovery_apply(struct db_conn *conn, bool onto_existing, struct arena *arena,
                        const char **ret_json)
{
    const char *params[] = {onto_existing ? "true" : "false"};
    DB_RESULT r = NULL;
    enum err e = db_exec(conn, &stmts[S_APPLY], params, &r);
    const char *json = e ? NULL : arena_strdup(arena, PQgetvalue(r, 0, 0));
    if (!e && !json)
        e = ERR_NO_MEMORY;
    if (!e)
        *ret_json = json;
    return e;
}
