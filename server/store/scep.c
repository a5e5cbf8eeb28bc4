#include "store/scep.h"

#include <inttypes.h>
#include <stdio.h>

enum { NUMBER_BYTES = 24 };

static const struct stmt stmts[] = {
    {"scep_pending_keep", "SELECT scep_pending_keep($1, $2, $3)", 3},
    {"scep_pending_get", "SELECT message FROM scep_pending WHERE transaction = $1", 1},
    {"scep_own_certificate", "SELECT scep_own_certificate($1, $2::bigint, $3)", 3},
};
const struct stmt_set scep_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_KEEP, S_GET, S_OWN };

enum err scep_pending_keep(struct db *db, struct bytes transaction, struct bytes message,
                           const char *device, struct arena *arena)
{
    const char *params[] = {db_bytea(arena, transaction.data, transaction.len),
                            db_bytea(arena, message.data, message.len), device};
    DB_RESULT r = NULL;
    return params[0] && params[1] ? db_query(db, &stmts[S_KEEP], params, &r, NULL) : ERR_NO_MEMORY;
}

static enum err bytes_get(struct db *db, const struct stmt *stmt, const char *const *params,
                          struct arena *arena, struct bytes *ret)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, stmt, params, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1 || PQgetisnull(r, 0, 0))
        return ERR_NOT_FOUND;
    return db_parse_bytea(arena, PQgetvalue(r, 0, 0), ret);
}

enum err scep_pending_get(struct db *db, struct bytes transaction, struct arena *arena,
                          struct bytes *ret_message)
{
    const char *params[] = {db_bytea(arena, transaction.data, transaction.len)};
    return params[0] ? bytes_get(db, &stmts[S_GET], params, arena, ret_message) : ERR_NO_MEMORY;
}

enum err scep_own_certificate(struct db *db, struct bytes fingerprint, int64_t issuer_id,
                              struct bytes serial_number, struct arena *arena,
                              struct bytes *ret_der)
{
    char issuer[NUMBER_BYTES];
    snprintf(issuer, sizeof(issuer), "%" PRId64, issuer_id);
    const char *params[] = {db_bytea(arena, fingerprint.data, fingerprint.len), issuer,
                            db_bytea(arena, serial_number.data, serial_number.len)};
    return params[0] && params[2] ? bytes_get(db, &stmts[S_OWN], params, arena, ret_der)
                                  : ERR_NO_MEMORY;
}
