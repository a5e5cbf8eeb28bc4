#include "store/enrol.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json_out.h"

enum { MAX_QUESTION_BYTES = 4096 };

static const struct stmt stmts[] = {
    {"enrol_peer",
     "SELECT d.serial, d.serial_canonical, d.product_id, d.template_id, c.purpose = 'operational'"
     " FROM certificate c JOIN device d ON d.id = c.device_id WHERE c.fingerprint = $1",
     1},
    {"enrol_failed", "SELECT attempt_failed($1::jsonb)", 1},
    {"enrol_seen",
     "SELECT code, detail, serial, thing, configuration, state"
     " FROM certificate_seen($1, $2, $3, $4)",
     4},
    {"enrol_unknown_issuer",
     "WITH gone AS (DELETE FROM unknown_issuer WHERE issuer_hash IN"
     " (SELECT issuer_hash FROM unknown_issuer WHERE issuer_hash <> $1"
     "  ORDER BY last_seen DESC OFFSET 255) RETURNING 1)"
     " INSERT INTO unknown_issuer (issuer_hash, issuer, aki, sample, last_source, certificate)"
     " VALUES ($1, left($2, 1024), $3, $4, $5, $6)"
     " ON CONFLICT (issuer_hash) DO UPDATE SET seen = unknown_issuer.seen + 1,"
     " last_seen = clock_timestamp(), last_source = excluded.last_source,"
     " certificate = COALESCE(unknown_issuer.certificate, excluded.certificate)",
     6},
    {"enrol_renewal",
     "SELECT extract(epoch FROM c.not_before)::bigint, extract(epoch FROM c.not_after)::bigint,"
     " d.template_id, c.status IN ('pending', 'current')"
     " FROM certificate c JOIN device d ON d.id = c.device_id"
     " WHERE c.issuer_id = $1::bigint AND c.serial_number = $2"
     " AND (c.purpose = 'operational') IS NOT FALSE",
     2},
    {"enrol_keygen", "SELECT enrol_keygen_check($1::jsonb)", 1},
};
const struct stmt_set enrol_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_PEER, S_FAILED, S_SEEN, S_UNKNOWN_ISSUER, S_RENEWAL, S_KEYGEN };

/* A column as text in the arena; NULL stays NULL. */
static const char *column(const PGresult *r, int c, struct arena *arena)
{
    const char *v = db_value(r, 0, c);
    return v ? arena_strdup(arena, v) : NULL;
}

enum err enrol_peer_get(struct db *db, struct bytes fingerprint, struct arena *arena,
                        struct enrol_peer *ret_peer)
{
    const char *params[] = {db_bytea(arena, fingerprint.data, fingerprint.len)};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_PEER], params, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_NOT_FOUND;
    struct enrol_peer peer = {
        .serial = column(r, 0, arena),
        .serial_canonical = column(r, 1, arena),
        .product_id = atoll(PQgetvalue(r, 0, 2)),
        .template_id = atoll(PQgetvalue(r, 0, 3)),
        .operational = PQgetvalue(r, 0, 4)[0] == 't',
    };
    if (!peer.serial || !peer.serial_canonical)
        return ERR_NO_MEMORY;
    *ret_peer = peer;
    return ERR_OK;
}

enum err enrol_renewal_get(struct db *db, struct arena *arena, int64_t issuer_id,
                           struct bytes serial_number, struct enrol_renewal *ret_renewal)
{
    const char *params[] = {arena_printf(arena, "%lld", (long long)issuer_id),
                            db_bytea(arena, serial_number.data, serial_number.len)};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_RENEWAL], params, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_NOT_FOUND;
    *ret_renewal = (struct enrol_renewal){
        .not_before_s = atoll(PQgetvalue(r, 0, 0)),
        .not_after_s = atoll(PQgetvalue(r, 0, 1)),
        .template_id = atoll(PQgetvalue(r, 0, 2)),
        .live = PQgetvalue(r, 0, 3)[0] == 't',
    };
    return ERR_OK;
}

static void question_write(struct buf *b, const struct enrol_record *r, struct arena *arena)
{
    json_begin_object(b);
    json_text(b, "request_id", r->request_id);
    json_text(b, "credential", r->credential);
    json_int(b, "product_id", r->product_id);
    json_int(b, "template_id", r->template_id);
    json_text(b, "template_label", r->template_label);
    json_text(b, "serial", r->serial);
    json_text(b, "serial_canonical", r->serial_canonical);
    json_text(b, "token_hash", db_bytea(arena, r->token_hash.data, r->token_hash.len));
    json_bool(b, "allowlist_required", r->allowlist_required);
    json_bool(b, "approval", r->approval);
    if (r->claim_id != 0)
        json_int(b, "claim_id", r->claim_id);
    json_bool(b, "claim_late", r->claim_late);
    json_end_object(b);
}

enum err enrol_keygen_check(struct db *db, const struct enrol_record *record, struct arena *arena,
                            struct enrol_outcome *ret_outcome)
{
    _cleanup_(buf_donep) struct buf b = {0};
    char message[DB_MAX_MESSAGE_BYTES] = "";
    DB_RESULT r = NULL;
    buf_init(&b, MAX_QUESTION_BYTES);
    question_write(&b, record, arena);
    const char *params[] = {buf_text(&b)};
    enum err e = b.overflow ? ERR_INVALID : db_query(db, &stmts[S_KEYGEN], params, &r, message);
    if (e && e != ERR_DENIED)
        return e;
    size_t code = strcspn(message, "\n");
    struct enrol_outcome o = {
        .code = e ? arena_copy(arena, message, code) : column(r, 0, arena),
        .detail = arena_strdup(arena, e && message[code] ? message + code + 1 : ""),
    };
    if (!o.code || !o.detail)
        return ERR_NO_MEMORY;
    *ret_outcome = o;
    return ERR_OK;
}

enum err enrol_failed(struct db *db, const char *json)
{
    const char *params[] = {json};
    DB_RESULT r = NULL;
    return db_query(db, &stmts[S_FAILED], params, &r, NULL);
}

enum err enrol_seen_record(struct db *db, struct bytes fingerprint, const char *how,
                           const char *request_id, const char *source, struct arena *arena,
                           struct enrol_seen *ret_seen)
{
    const char *params[] = {db_bytea(arena, fingerprint.data, fingerprint.len), how, request_id,
                            source};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_SEEN], params, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_SYSTEM;
    struct enrol_seen seen = {
        .code = column(r, 0, arena),
        .detail = column(r, 1, arena),
        .serial = column(r, 2, arena),
        .thing_name = column(r, 3, arena),
        .configuration = column(r, 4, arena),
        .state = column(r, 5, arena),
    };
    if (!seen.code)
        return ERR_NO_MEMORY;
    *ret_seen = seen;
    return ERR_OK;
}

enum err enrol_unknown_issuer(struct db *db, struct arena *arena, const struct unknown_issuer *u)
{
    const char *params[] = {
        db_bytea(arena, u->hash.data, u->hash.len),
        u->issuer,
        u->aki.len > 0 ? db_bytea(arena, u->aki.data, u->aki.len) : NULL,
        db_bytea(arena, u->sample.data, u->sample.len),
        u->source,
        u->certificate.len > 0 ? db_bytea(arena, u->certificate.data, u->certificate.len) : NULL,
    };
    DB_RESULT r = NULL;
    return db_query(db, &stmts[S_UNKNOWN_ISSUER], params, &r, NULL);
}
