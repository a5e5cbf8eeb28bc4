#include "store/factory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json_out.h"
#include "base/text.h"

enum { NUMBER_BYTES = 24, MAX_LIST_BYTES = 4 << 20 };

/* A scope, without the certificate in what goes back. */
#define SCOPE                                                                                      \
    "SELECT s.station, s.batch, s.template_id, s.certificate, s.journal_n, s.journal_hash,"        \
    " (to_jsonb(s) - 'certificate')::text FROM "
#define SCOPE_PARAM "jsonb_populate_record(NULL::factory_scope, $2::jsonb)"

enum { S_BY_CERTIFICATE, S_BY_BATCH, S_BY_STATION, S_CERTIFY, S_KNOWN, S_REGISTERED, S_PUT };

static const struct stmt stmts[] = {
    [S_BY_CERTIFICATE] = {"factory_by_certificate", SCOPE "factory_by_certificate($1) s", 1},
    [S_BY_BATCH] = {"factory_by_batch", SCOPE "factory_by_batch($1::jsonb, $2) s", 2},
    [S_BY_STATION] = {"factory_by_station", SCOPE "factory_by_station($1::jsonb, $2) s", 2},
    [S_CERTIFY] = {"factory_certify",
                   "SELECT " ENROL_OUTCOME_COLUMNS " FROM factory_certify($1::jsonb, " SCOPE_PARAM
                   ", $3::jsonb, $4::jsonb, $5, $6::boolean)",
                   6},
    [S_KNOWN] = {"factory_known",
                 "SELECT n, hash FROM factory_entries_known(($1::jsonb->>'station_id')::bigint,"
                 " $2::bigint, $3::bigint)",
                 3},
    [S_REGISTERED] = {"factory_registered",
                      "SELECT x.i - 1 FROM jsonb_array_elements_text($1::jsonb)"
                      " WITH ORDINALITY x(f, i) WHERE EXISTS"
                      " (SELECT 1 FROM certificate c WHERE c.fingerprint = decode(x.f, 'hex'))",
                      1},
    [S_PUT] = {"factory_entries_put",
               "SELECT factory_entries_put($1::jsonb, " SCOPE_PARAM
               ", $3::jsonb, $4::jsonb, $5::bigint, $6)",
               6},
};
const struct stmt_set factory_statements = {stmts, ARRAY_LEN(stmts)};

static const char *column(const PGresult *r, int c, struct arena *arena)
{
    const char *v = db_value(r, 0, c);
    return v ? arena_strdup(arena, v) : NULL;
}

static enum err scope_take(const PGresult *r, struct arena *arena, struct factory_scope *ret)
{
    const char *certificate = PQntuples(r) == 1 ? db_value(r, 0, 3) : NULL;
    if (PQntuples(r) != 1 || PQgetisnull(r, 0, 1))
        return ERR_SYSTEM;
    struct factory_scope s = {
        .station = column(r, 0, arena),
        .batch = column(r, 1, arena),
        .template_id = atoll(PQgetvalue(r, 0, 2)),
        .journal_n = atoll(PQgetvalue(r, 0, 4)),
        .journal_hash = column(r, 5, arena),
        .json = column(r, 6, arena),
    };
    enum err e = certificate ? db_parse_bytea(arena, certificate, &s.certificate) : ERR_OK;
    if (!s.batch || !s.json || !s.journal_hash)
        e = ERR_NO_MEMORY;
    if (!e)
        *ret = s;
    return e;
}

static enum err scope_get(struct db *db, const struct stmt *stmt, const char *const *params,
                          struct arena *arena, struct factory_scope *ret_scope, char *ret_message)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, stmt, params, &r, ret_message);
    return e ? e : scope_take(r, arena, ret_scope);
}

enum err factory_by_certificate(struct db *db, struct bytes fingerprint, struct arena *arena,
                                struct factory_scope *ret_scope, char *ret_message)
{
    const char *params[] = {db_bytea(arena, fingerprint.data, fingerprint.len)};
    return scope_get(db, &stmts[S_BY_CERTIFICATE], params, arena, ret_scope, ret_message);
}

enum err factory_by_batch(struct db *db, const char *op, const char *batch, struct arena *arena,
                          struct factory_scope *ret_scope, char *ret_message)
{
    const char *params[] = {op, batch};
    return scope_get(db, &stmts[S_BY_BATCH], params, arena, ret_scope, ret_message);
}

enum err factory_by_station(struct db *db, const char *op, const char *station, struct arena *arena,
                            struct factory_scope *ret_scope, char *ret_message)
{
    const char *params[] = {op, station};
    return scope_get(db, &stmts[S_BY_STATION], params, arena, ret_scope, ret_message);
}

static enum err outcomes_take(const PGresult *r, size_t count, struct arena *arena,
                              struct enrol_outcome *ret_outcomes)
{
    enum err e = PQntuples(r) == (int)count ? ERR_OK : ERR_SYSTEM;
    for (int row = 0; row < PQntuples(r) && !e; row++) {
        size_t ord = (size_t)strtoul(PQgetvalue(r, row, 0), NULL, 10);
        e = ord < count ? enrol_outcome_read(r, row, arena, &ret_outcomes[ord]) : ERR_SYSTEM;
    }
    return e;
}

enum err factory_certify(struct db *db, const char *op, const struct factory_scope *scope,
                         const struct enrol_record *records, size_t count, bool again,
                         struct arena *arena, struct enrol_outcome *ret_outcomes, char *ret_message)
{
    _cleanup_(buf_donep) struct buf base = {0};
    _cleanup_(buf_donep) struct buf b = {0};
    _cleanup_(buf_donep) struct buf ders = {0};
    DB_RESULT r = NULL;
    size_t der_at = 0;
    buf_init(&base, ENROL_MAX_RECORD_BYTES);
    buf_init(&b, count * ENROL_MAX_RECORD_BYTES);
    buf_init(&ders, count * ENROL_MAX_RECORD_BYTES);
    enrol_record_add_base(&base, &records[0]);
    buf_add_text(&ders, "\\x");
    json_begin_array(&b);
    for (size_t i = 0; i < count; i++) {
        enrol_record_add_apart(&b, &records[i], &records[0], i, der_at);
        text_add_hex(&ders, records[i].certificate);
        der_at += records[i].certificate.len;
    }
    json_end_array(&b);
    const char *params[] = {op,           scope->json,     buf_text(&base),
                            buf_text(&b), buf_text(&ders), again ? "true" : "false"};
    enum err e = base.overflow || b.overflow || ders.overflow
                     ? ERR_INVALID
                     : db_query(db, &stmts[S_CERTIFY], params, &r, ret_message);
    return e ? e : outcomes_take(r, count, arena, ret_outcomes);
}

enum err factory_known_get(struct db *db, const struct factory_scope *scope, int64_t first,
                           int64_t last, struct arena *arena, struct factory_known **ret_known,
                           size_t *ret_count)
{
    char from[NUMBER_BYTES], to[NUMBER_BYTES];
    const char *params[] = {scope->json, from, to};
    DB_RESULT r = NULL;
    snprintf(from, sizeof(from), "%lld", (long long)first);
    snprintf(to, sizeof(to), "%lld", (long long)last);
    enum err e = db_query(db, &stmts[S_KNOWN], params, &r, NULL);
    if (e)
        return e;
    size_t count = (size_t)PQntuples(r);
    struct factory_known *known = arena_alloc(arena, (count + 1) * sizeof(*known));
    for (size_t i = 0; known && i < count; i++) {
        known[i].n = atoll(PQgetvalue(r, (int)i, 0));
        known[i].hash = arena_strdup(arena, PQgetvalue(r, (int)i, 1));
        if (!known[i].hash)
            return ERR_NO_MEMORY;
    }
    if (!known)
        return ERR_NO_MEMORY;
    *ret_known = known;
    *ret_count = count;
    return ERR_OK;
}

enum err factory_registered(struct db *db, const struct bytes *fingerprints, size_t count,
                            struct arena *arena, bool *ret_there)
{
    _cleanup_(buf_donep) struct buf b = {0};
    DB_RESULT r = NULL;
    buf_init(&b, MAX_LIST_BYTES);
    json_begin_array(&b);
    for (size_t i = 0; i < count; i++)
        json_item_text(&b, text_hex(arena, fingerprints[i]));
    json_end_array(&b);
    const char *params[] = {buf_text(&b)};
    enum err e = b.overflow ? ERR_INVALID : db_query(db, &stmts[S_REGISTERED], params, &r, NULL);
    if (e)
        return e;
    memset(ret_there, 0, count * sizeof(*ret_there));
    for (int row = 0; row < PQntuples(r); row++) {
        size_t i = (size_t)strtoul(PQgetvalue(r, row, 0), NULL, 10);
        if (i >= count)
            return ERR_SYSTEM;
        ret_there[i] = true;
    }
    return ERR_OK;
}

enum err factory_entries_put(struct db *db, const char *op, const struct factory_scope *scope,
                             const char *lines, const char *gaps, int64_t head_n,
                             const char *head_hash, char *ret_message)
{
    char n[NUMBER_BYTES];
    const char *params[] = {op, scope->json, lines, gaps, n, head_hash};
    DB_RESULT r = NULL;
    snprintf(n, sizeof(n), "%lld", (long long)head_n);
    return db_query(db, &stmts[S_PUT], params, &r, ret_message);
}
