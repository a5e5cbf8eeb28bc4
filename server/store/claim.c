#include "store/claim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json_out.h"

enum { MAX_REQUEST_BYTES = 64 * 1024, NUMBER_BYTES = 24 };

static const struct stmt stmts[] = {
    {"claim_get",
     "SELECT c.id, c.name, c.template_id, c.rate_per_second, c.rate_burst, c.grace_s,"
     " array_to_string(ARRAY(SELECT s.template_id FROM claim_template s WHERE s.claim_id = c.id"
     "  ORDER BY s.template_id LIMIT 16), ' ')"
     " FROM claim c WHERE c.fingerprint = $1",
     1},
    {"claim_check", "SELECT 'ok' FROM claim_certificate_check($1::bigint, $2::boolean)", 2},
    {"claim_make", "SELECT claim_certificate_make($1::jsonb)", 1},
    {"claim_open",
     "SELECT code, answer, (o).spki_sha256, (o).fingerprint, (o).certificate, (o).serial_number,"
     " (o).issuer_id, extract(epoch FROM (o).not_before)::bigint,"
     " extract(epoch FROM (o).not_after)::bigint, (o).key_kind, (o).csr_serial"
     " FROM ownership_open($1::jsonb)",
     1},
};
const struct stmt_set claim_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_GET, S_CHECK, S_MAKE, S_OPEN };

static void templates_take(const char *text, struct claim_row *row)
{
    while (*text && row->template_count < CLAIM_MAX_TEMPLATES) {
        char *end = NULL;
        row->templates[row->template_count++] = strtoll(text, &end, 10);
        text = end + strspn(end, " ");
    }
}

enum err claim_get(struct db *db, struct bytes fingerprint, struct arena *arena,
                   struct claim_row *ret_claim)
{
    const char *params[] = {db_bytea(arena, fingerprint.data, fingerprint.len)};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_GET], params, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_NOT_FOUND;
    struct claim_row row = {
        .id = atoll(PQgetvalue(r, 0, 0)),
        .template_id = atoll(PQgetvalue(r, 0, 2)),
        .rate_per_second = (unsigned)strtoul(PQgetvalue(r, 0, 3), NULL, 10),
        .rate_burst = (unsigned)strtoul(PQgetvalue(r, 0, 4), NULL, 10),
        .grace_s = atoll(PQgetvalue(r, 0, 5)),
    };
    snprintf(row.name, sizeof(row.name), "%s", PQgetvalue(r, 0, 1));
    templates_take(PQgetvalue(r, 0, 6), &row);
    *ret_claim = row;
    return ERR_OK;
}

/* What the registry said: its answer's first column, or the refusal it raised. */
static enum err outcome_take(enum err e, const PGresult *r, const char *message,
                             struct arena *arena, struct enrol_outcome *ret)
{
    if (e && e != ERR_DENIED)
        return e;
    if (!e && PQntuples(r) != 1)
        return ERR_SYSTEM;
    size_t code = strcspn(message, "\n");
    struct enrol_outcome o = {
        .code = e ? arena_copy(arena, message, code) : arena_strdup(arena, PQgetvalue(r, 0, 0)),
        .detail = arena_strdup(arena, e && message[code] ? message + code + 1 : ""),
    };
    if (!o.code || !o.detail)
        return ERR_NO_MEMORY;
    *ret = o;
    return ERR_OK;
}

enum err claim_certificate_check(struct db *db, int64_t claim_id, bool late, struct arena *arena,
                                 struct enrol_outcome *ret_outcome)
{
    char id[NUMBER_BYTES], message[DB_MAX_MESSAGE_BYTES] = "";
    snprintf(id, sizeof(id), "%lld", (long long)claim_id);
    const char *params[] = {id, late ? "true" : "false"};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_CHECK], params, &r, message);
    return outcome_take(e, r, message, arena, ret_outcome);
}

static void bytea_add(struct buf *b, const char *key, struct bytes value, struct arena *arena)
{
    json_text(b, key, db_bytea(arena, value.data, value.len));
}

static void origin_add(struct buf *b, const struct enrol_record *r, struct arena *arena)
{
    json_text(b, "request_id", r->request_id);
    json_text(b, "protocol", r->protocol);
    json_text(b, "operation", r->operation);
    json_text(b, "credential", r->credential);
    json_text(b, "source", r->source);
    json_text(b, "template_label", r->template_label);
    json_int(b, "product_id", r->product_id);
    json_int(b, "claim_id", r->claim_id);
    json_text(b, "claim_name", r->claim_name);
    json_bool(b, "claim_late", r->claim_late);
    json_text(b, "client_id", r->client_id);
    bytea_add(b, "ownership_hash", r->ownership_hash, arena);
    bytea_add(b, "parameters_hash", r->parameters_hash, arena);
    json_raw(b, "steps", r->steps);
}

enum err claim_certificate_make(struct db *db, const struct claim_certificate *c,
                                struct arena *arena, struct enrol_outcome *ret_outcome)
{
    const struct enrol_record *r = c->record;
    _cleanup_(buf_donep) struct buf b = {0};
    char message[DB_MAX_MESSAGE_BYTES] = "";
    DB_RESULT result = NULL;
    buf_init(&b, MAX_REQUEST_BYTES);
    json_begin_object(&b);
    origin_add(&b, r, arena);
    bytea_add(&b, "token_hash", r->ownership_hash, arena);
    bytea_add(&b, "spki", r->spki, arena);
    bytea_add(&b, "fingerprint", r->fingerprint, arena);
    bytea_add(&b, "certificate", r->certificate, arena);
    bytea_add(&b, "serial_number", r->serial_number, arena);
    json_int(&b, "issuer_id", r->issuer_id);
    json_int(&b, "not_before", r->not_before);
    json_int(&b, "not_after", r->not_after);
    json_int(&b, "key_kind", c->key_kind);
    json_text(&b, "csr_serial", c->csr_serial);
    json_int(&b, "life_s", c->life_s);
    json_end_object(&b);
    const char *params[] = {buf_text(&b)};
    enum err e = b.overflow ? ERR_INVALID : db_query(db, &stmts[S_MAKE], params, &result, message);
    return outcome_take(e, result, message, arena, ret_outcome);
}

static enum err owned_take(const PGresult *r, struct arena *arena, struct claim_owned *ret)
{
    struct claim_owned o = {
        .issuer_id = atoll(PQgetvalue(r, 0, 6)),
        .not_before_s = atoll(PQgetvalue(r, 0, 7)),
        .not_after_s = atoll(PQgetvalue(r, 0, 8)),
        .key_kind = atoi(PQgetvalue(r, 0, 9)),
    };
    struct bytes *const parts[] = {&o.spki, &o.fingerprint, &o.certificate, &o.serial_number};
    enum err e = ERR_OK;
    for (int i = 0; i < (int)ARRAY_LEN(parts) && !e; i++)
        e = db_parse_bytea(arena, PQgetvalue(r, 0, 2 + i), parts[i]);
    const char *serial = db_value(r, 0, 10);
    if (!e && serial && !(o.csr_serial = arena_strdup(arena, serial)))
        e = ERR_NO_MEMORY;
    if (!e)
        *ret = o;
    return e;
}

enum err claim_certificate_open(struct db *db, const struct enrol_record *record,
                                struct arena *arena, struct claim_owned *ret_owned,
                                struct enrol_outcome *ret_outcome)
{
    _cleanup_(buf_donep) struct buf b = {0};
    char message[DB_MAX_MESSAGE_BYTES] = "";
    DB_RESULT r = NULL;
    buf_init(&b, MAX_REQUEST_BYTES);
    json_begin_object(&b);
    origin_add(&b, record, arena);
    json_end_object(&b);
    const char *params[] = {buf_text(&b)};
    enum err e = b.overflow ? ERR_INVALID : db_query(db, &stmts[S_OPEN], params, &r, message);
    bool answered = e == ERR_OK;
    e = outcome_take(e, r, message, arena, ret_outcome);
    if (e || !answered)
        return e;
    if (strcmp(ret_outcome->code, "replayed") != 0)
        return owned_take(r, arena, ret_owned);
    ret_outcome->answer = arena_strdup(arena, PQgetvalue(r, 0, 1));
    return ret_outcome->answer ? ERR_OK : ERR_NO_MEMORY;
}
