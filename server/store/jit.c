#include "store/jit.h"

#include <stdlib.h>

static const struct stmt stmts[] = {
    {"jit_find",
     "SELECT code, detail, serial, waiting, coalesce(template_id, 0), parameters"
     " FROM jit_find($1, $2)",
     2},
    {"jit_contact", "SELECT jit_contact($1::jsonb)", 1},
};
const struct stmt_set jit_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_FIND, S_CONTACT };

static const char *column(const PGresult *r, int c, struct arena *arena)
{
    const char *v = db_value(r, 0, c);
    return v ? arena_strdup(arena, v) : NULL;
}

enum err jit_find(struct db *db, struct bytes fingerprint, struct bytes spki, struct arena *arena,
                  struct jit_known *ret_known)
{
    const char *params[] = {db_bytea(arena, fingerprint.data, fingerprint.len),
                            db_bytea(arena, spki.data, spki.len)};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_FIND], params, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_SYSTEM;
    struct jit_known known = {
        .code = column(r, 0, arena),
        .detail = column(r, 1, arena),
        .serial = column(r, 2, arena),
        .waiting = column(r, 3, arena),
        .template_id = atoll(PQgetvalue(r, 0, 4)),
        .parameters = column(r, 5, arena),
    };
    if (!known.code)
        return ERR_NO_MEMORY;
    *ret_known = known;
    return ERR_OK;
}

enum err jit_contact(struct db *db, const char *json)
{
    const char *params[] = {json};
    DB_RESULT r = NULL;
    return db_query(db, &stmts[S_CONTACT], params, &r, NULL);
}
