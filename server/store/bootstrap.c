#include "store/bootstrap.h"

#include <stdio.h>
#include <stdlib.h>

enum { BOOTSTRAP_ARENA_BYTES = 512 * 1024 };

static const struct stmt stmts[] = {
    {"bootstrap_ca",
     "WITH made AS (INSERT INTO ca (kind, name, certificate, fingerprint, spki_sha256, subject, "
     "key_reference, not_after)"
     " VALUES ($1, $2, $3, $4, $5, $6, $7, to_timestamp($8::bigint)) RETURNING spki_sha256, name),"
     " key AS (INSERT INTO key_owner (spki_sha256, kind) SELECT spki_sha256, 'ca' FROM made "
     "WHERE $1 <> 'rollover')"
     " INSERT INTO audit (actor, source, action, object, detail)"
     " SELECT 'musterd', 'local', 'ca.create', name, jsonb_build_object('kind', $1) FROM made",
     8},
    {"bootstrap_admin",
     "WITH made AS (INSERT INTO admin_token (name, hash, role) VALUES ($1, $2, 'admin') RETURNING "
     "name)"
     " INSERT INTO audit (actor, source, action, object)"
     " SELECT 'musterd', 'local', 'admin_token.create', name FROM made",
     2},
    {"bootstrap_issuers", "SELECT count(*) FROM ca WHERE kind = 'issuing'", 0},
};
const struct stmt_set bootstrap_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_CA, S_ADMIN, S_ISSUERS };

static enum err ca_write(struct db_conn *c, const struct bootstrap_ca *ca, struct arena *arena)
{
    char not_after[24];
    snprintf(not_after, sizeof(not_after), "%lld", (long long)ca->not_after_s);
    const char *params[] = {
        ca->kind,
        ca->name,
        db_bytea(arena, ca->der.data, ca->der.len),
        db_bytea(arena, ca->fingerprint.data, ca->fingerprint.len),
        db_bytea(arena, ca->spki_sha256.data, ca->spki_sha256.len),
        ca->subject,
        ca->key_reference,
        not_after,
    };
    return db_exec(c, &stmts[S_CA], params, NULL);
}

static enum err body(struct db_conn *c, void *ctx)
{
    const struct bootstrap *b = ctx;
    _cleanup_(arena_donep) struct arena arena = {0};
    arena_init(&arena, BOOTSTRAP_ARENA_BYTES);
    enum err e = ERR_OK;
    for (size_t i = 0; i < b->ca_count && !e; i++)
        e = ca_write(c, &b->cas[i], &arena);
    if (e || !b->admin_name)
        return e;
    const char *params[] = {b->admin_name, db_bytea(&arena, b->admin_hash.data, b->admin_hash.len)};
    return db_exec(c, &stmts[S_ADMIN], params, NULL);
}

enum err bootstrap_write(struct db *db, const struct bootstrap *b, char *ret_message)
{
    struct bootstrap copy = *b;
    return db_transaction(db, body, &copy, ret_message);
}

enum err bootstrap_issuers(struct db *db, int *ret_count)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_ISSUERS], NULL, &r, NULL);
    if (!e)
        *ret_count = atoi(PQgetvalue(r, 0, 0));
    return e;
}
