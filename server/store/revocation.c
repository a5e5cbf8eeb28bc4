#include "store/revocation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

enum { NUMBER_BYTES = 24, MAX_ISSUERS_BYTES = 4096, MAX_PLAN_BYTES = 1 << 20 };

static const struct stmt stmts[] = {
    {"crl_lead", "SELECT pg_try_advisory_xact_lock(1836413810)", 0},
    {"crl_due",
     "SELECT issuer_id, shards, shard, is_full, number, coalesce(base_number, 0),"
     " coalesce(base_at, 0), stamp"
     " FROM crl_due($1::bigint[], $2::int, make_interval(secs => $3::int), $4)",
     4},
    {"crl_entries",
     "SELECT serial_number, revoked_s, reason FROM crl_entries($1::bigint, $2::int, $3::int,"
     " make_interval(secs => $4::int), to_timestamp(nullif($5::bigint, 0)))",
     5},
    {"crl_store",
     "SELECT crl_store($1::bigint, $2::int, $3::int, $4::bool, $5::bigint, $6::bigint,"
     " $7::bigint, $8::bigint, $9, $10)",
     10},
    {"crl_look",
     "SELECT number, extract(epoch FROM this_update)::bigint,"
     " extract(epoch FROM next_update)::bigint, entries FROM crl"
     " WHERE issuer_id = $1::bigint AND shards = $2::int AND shard = $3::int AND is_delta = "
     "$4::bool",
     4},
    {"crl_load",
     "SELECT number, extract(epoch FROM this_update)::bigint,"
     " extract(epoch FROM next_update)::bigint, entries, der FROM crl"
     " WHERE issuer_id = $1::bigint AND shards = $2::int AND shard = $3::int AND is_delta = "
     "$4::bool",
     4},
    {"ocsp_status", "SELECT status, revoked_s, reason FROM ocsp_status($1::bigint, $2)", 2},
};
const struct stmt_set revocation_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_LEAD, S_DUE, S_ENTRIES, S_STORE, S_LOOK, S_LOAD, S_STATUS };

struct number {
    char text[NUMBER_BYTES];
};

static const char *put(struct number *n, int64_t value)
{
    snprintf(n->text, sizeof(n->text), "%" PRId64, value);
    return n->text;
}

static enum err due_load(struct db *db, const struct crl_plan *plan, PGresult **ret_rows)
{
    struct number shards, every;
    _cleanup_(buf_donep) struct buf issuers = {0};
    buf_init(&issuers, MAX_ISSUERS_BYTES);
    buf_add_char(&issuers, '{');
    for (size_t i = 0; i < plan->issuer_count; i++)
        buf_printf(&issuers, "%s%" PRId64, i > 0 ? "," : "", plan->issuers[i]);
    buf_add_char(&issuers, '}');
    const char *params[] = {buf_text(&issuers), put(&shards, plan->shards),
                            put(&every, plan->every_s), plan->url ? plan->url : ""};
    return issuers.overflow ? ERR_NO_MEMORY : db_query(db, &stmts[S_DUE], params, ret_rows, NULL);
}

static struct crl_wish wish_of(const PGresult *r, int row)
{
    return (struct crl_wish){
        .name = {.issuer_id = atoll(PQgetvalue(r, row, 0)),
                 .shards = atoi(PQgetvalue(r, row, 1)),
                 .shard = atoi(PQgetvalue(r, row, 2)),
                 .delta = PQgetvalue(r, row, 3)[0] != 't'},
        .number = atoll(PQgetvalue(r, row, 4)),
        .base_number = atoll(PQgetvalue(r, row, 5)),
        .base_at_s = atoll(PQgetvalue(r, row, 6)),
        .stamp = PQgetvalue(r, row, 7),
    };
}

struct turn {
    const struct crl_plan *plan;
    struct crl_wish wish;
    bool leads;
};

static enum err turn_run(struct db_conn *conn, void *ctx)
{
    struct turn *turn = ctx;
    DB_RESULT r = NULL;
    enum err e = db_exec(conn, &stmts[S_LEAD], NULL, &r);
    if (e)
        return e;
    turn->leads = PQgetvalue(r, 0, 0)[0] == 't';
    return turn->leads ? turn->plan->sign(conn, &turn->wish, turn->plan->ctx) : ERR_OK;
}

enum err revocation_crls_run(struct db *db, const struct crl_plan *plan)
{
    DB_RESULT due = NULL;
    if (plan->issuer_count == 0)
        return ERR_OK;
    enum err e = due_load(db, plan, &due);
    struct turn turn = {.plan = plan, .leads = true};
    for (int i = 0; !e && turn.leads && i < PQntuples(due); i++) {
        turn.wish = wish_of(due, i);
        e = db_transaction(db, turn_run, &turn, NULL);
    }
    return e;
}

static enum err revoked_take(const PGresult *r, int row, struct arena *arena, struct revoked *ret)
{
    ret->revoked_s = atoll(PQgetvalue(r, row, 1));
    ret->reason = revocation_reason_of(PQgetvalue(r, row, 2));
    return db_parse_bytea(arena, PQgetvalue(r, row, 0), &ret->serial_number);
}

enum err revocation_entries(struct db_conn *conn, const struct crl_name *name, int64_t life_s,
                            int64_t since_s, struct arena *arena, struct revoked **ret_rows,
                            size_t *ret_count)
{
    struct number issuer, shards, shard, life, since;
    const char *params[] = {put(&issuer, name->issuer_id), put(&shards, name->shards),
                            put(&shard, name->shard), put(&life, life_s), put(&since, since_s)};
    DB_RESULT r = NULL;
    enum err e = db_exec(conn, &stmts[S_ENTRIES], params, &r);
    if (e)
        return e;
    int count = PQntuples(r);
    struct revoked *rows = arena_alloc(arena, ((size_t)count + 1) * sizeof(*rows));
    if (!rows)
        return ERR_NO_MEMORY;
    for (int i = 0; i < count && !e; i++)
        e = revoked_take(r, i, arena, &rows[i]);
    *ret_rows = rows;
    *ret_count = (size_t)count;
    return e;
}

enum err revocation_crl_store(struct db_conn *conn, struct arena *arena, const struct crl_signed *c)
{
    struct number issuer, shards, shard, number, this_s, next_s, entries;
    const char *params[] = {put(&issuer, c->name.issuer_id),
                            put(&shards, c->name.shards),
                            put(&shard, c->name.shard),
                            c->name.delta ? "t" : "f",
                            put(&number, c->number),
                            put(&this_s, c->this_update_s),
                            put(&next_s, c->next_update_s),
                            put(&entries, (int64_t)c->entries),
                            c->stamp,
                            db_bytea(arena, c->der.data, c->der.len)};
    DB_RESULT r = NULL;
    return params[9] ? db_exec(conn, &stmts[S_STORE], params, &r) : ERR_NO_MEMORY;
}

static enum err crl_get(struct db *db, const struct stmt *stmt, const struct crl_name *name,
                        PGresult **ret_row, struct crl_signed *ret_crl)
{
    struct number issuer, shards, shard;
    const char *params[] = {put(&issuer, name->issuer_id), put(&shards, name->shards),
                            put(&shard, name->shard), name->delta ? "t" : "f"};
    enum err e = db_query(db, stmt, params, ret_row, NULL);
    if (e)
        return e;
    const PGresult *r = *ret_row;
    if (PQntuples(r) != 1)
        return ERR_NOT_FOUND;
    *ret_crl = (struct crl_signed){
        .name = *name,
        .number = atoll(PQgetvalue(r, 0, 0)),
        .this_update_s = atoll(PQgetvalue(r, 0, 1)),
        .next_update_s = atoll(PQgetvalue(r, 0, 2)),
        .entries = (size_t)atoll(PQgetvalue(r, 0, 3)),
    };
    return ERR_OK;
}

enum err revocation_crl_look(struct db *db, const struct crl_name *name, struct crl_signed *ret_crl)
{
    DB_RESULT r = NULL;
    return crl_get(db, &stmts[S_LOOK], name, &r, ret_crl);
}

enum err revocation_crl_load(struct db *db, const struct crl_name *name, struct arena *arena,
                             struct crl_signed *ret_crl)
{
    DB_RESULT r = NULL;
    enum err e = crl_get(db, &stmts[S_LOAD], name, &r, ret_crl);
    return e ? e : db_parse_bytea(arena, PQgetvalue(r, 0, 4), &ret_crl->der);
}

enum err revocation_status(struct db *db, struct bytes serial_number, int64_t issuer_id,
                           struct ocsp_status *ret_status)
{
    _cleanup_(arena_donep) struct arena arena;
    struct number issuer;
    arena_init(&arena, MAX_PLAN_BYTES);
    const char *params[] = {put(&issuer, issuer_id),
                            db_bytea(&arena, serial_number.data, serial_number.len)};
    DB_RESULT r = NULL;
    enum err e = params[1] ? db_query(db, &stmts[S_STATUS], params, &r, NULL) : ERR_NO_MEMORY;
    if (e)
        return e;
    *ret_status = (struct ocsp_status){.state = OCSP_UNKNOWN};
    if (PQntuples(r) == 0)
        return ERR_OK;
    ret_status->state = strcmp(PQgetvalue(r, 0, 0), "good") == 0 ? OCSP_GOOD : OCSP_REVOKED;
    if (ret_status->state == OCSP_REVOKED) {
        ret_status->revoked_s = atoll(PQgetvalue(r, 0, 1));
        ret_status->reason = revocation_reason_of(PQgetvalue(r, 0, 2));
    }
    return ERR_OK;
}
