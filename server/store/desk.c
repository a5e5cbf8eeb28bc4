#include "store/desk.h"

#include <stdlib.h>
#include <string.h>

/* A page of rows as one JSON array, the key of the last row and the number of rows. */
#define PAGE(rows)                                                                                 \
    "WITH op(op) AS (SELECT $1::jsonb), a(a) AS (SELECT $2::jsonb), page AS (" rows                \
    ") SELECT COALESCE(json_agg(j ORDER BY n), '[]'), (array_agg(k ORDER BY n DESC))[1], "         \
    "count(*) FROM page"
#define LIMIT " LIMIT ($2::jsonb->>'limit')::integer"
#define ARG(name) "$2::jsonb->>'" name "'"
#define FILTER(column, name) " AND (" ARG(name) " IS NULL OR " column " = " ARG(name) ")"
#define SEES(column) " muster.desk_sees($1::jsonb, " column ")"
#define SERIAL(column)                                                                             \
    " AND (" ARG("serial") " IS NULL OR " column " = serial_canonical(p, " ARG("serial") "))"
#define AFTER_ID(column) " AND " column " > COALESCE((" ARG("after") ")::bigint, 0)"
#define CALL(function) "SELECT " function "($1::jsonb, $2::jsonb)"

enum { S_LOGIN = DESK_CALL_COUNT, S_IMPORT_TABLE, S_IMPORT };

/* clang-format off */
static const struct stmt stmts[] = {
    [DESK_PRODUCT_LIST] = {"desk_product_list", PAGE(
        "SELECT product_json(p) j, p.name k, row_number() OVER (ORDER BY p.name) n"
        " FROM product p WHERE" SEES("p.id") " AND p.name > COALESCE(" ARG("after") ", '')"
        " ORDER BY p.name" LIMIT), 2},
    [DESK_PRODUCT_CREATE] = {"desk_product_create", CALL("desk_product_create"), 2},
    [DESK_TEMPLATE_LIST] = {"desk_template_list", PAGE(
        "SELECT template_json(t) j, t.name k, row_number() OVER (ORDER BY t.name) n"
        " FROM template t JOIN product p ON p.id = t.product_id"
        " WHERE" SEES("p.id") FILTER("p.name", "product")
        " AND t.name > COALESCE(" ARG("after") ", '') ORDER BY t.name" LIMIT), 2},
    [DESK_TEMPLATE_PUT] = {"desk_template_put", CALL("desk_template_put"), 2},
    [DESK_TEMPLATE_SHOW] = {"desk_template_show", CALL("desk_template_show"), 2},
    [DESK_TEMPLATE_ENABLE] = {"desk_template_enable", CALL("desk_template_enable"), 2},
    [DESK_ALLOWLIST_LIST] = {"desk_allowlist_list", PAGE(
        "SELECT allowlist_json(r) j, r.serial_canonical k,"
        " row_number() OVER (ORDER BY r.serial_canonical) n FROM allowlist r"
        " WHERE r.product_id = (SELECT p.id FROM desk_product($1::jsonb, " ARG("product") ") p)"
        " AND r.serial_canonical > COALESCE(" ARG("after") ", '')"
        " AND CASE " ARG("state") " WHEN 'unseen' THEN r.device_id IS NULL"
        " WHEN 'claimed' THEN r.device_id IS NOT NULL WHEN 'blocked' THEN r.blocked ELSE true END"
        " ORDER BY r.serial_canonical" LIMIT), 2},
    [DESK_ALLOWLIST_BLOCK] = {"desk_allowlist_block", CALL("desk_allowlist_block"), 2},
    [DESK_TOKEN_LIST] = {"desk_token_list", PAGE(
        "SELECT token_json(t)::json j, t.id::text k, row_number() OVER (ORDER BY t.id) n"
        " FROM token t JOIN template x ON x.id = t.template_id JOIN product p ON p.id = x.product_id"
        " WHERE" SEES("p.id") FILTER("x.name", "template") FILTER("token_state(t)", "state")
        SERIAL("t.serial_canonical") AFTER_ID("t.id") " ORDER BY t.id" LIMIT), 2},
    [DESK_TOKEN_CREATE] = {"desk_token_create", CALL("desk_token_create"), 2},
    [DESK_TOKEN_SHOW] = {"desk_token_show", CALL("desk_token_show"), 2},
    [DESK_TOKEN_REVOKE] = {"desk_token_revoke", CALL("desk_token_revoke"), 2},
    [DESK_TOKEN_REGENERATE] = {"desk_token_regenerate", CALL("desk_token_regenerate"), 2},
    [DESK_CLAIM_LIST] = {"desk_claim_list", PAGE(
        "SELECT claim_json(c)::json j, c.name k, row_number() OVER (ORDER BY c.name) n"
        " FROM claim c JOIN product p ON p.id = c.product_id"
        " WHERE" SEES("p.id") FILTER("p.name", "product") FILTER("claim_state(c)", "state")
        " AND (" ARG("template") " IS NULL OR EXISTS (SELECT 1 FROM claim_template s JOIN template x"
        " ON x.id = s.template_id WHERE s.claim_id = c.id AND x.name = " ARG("template") "))"
        " AND c.name > COALESCE(" ARG("after") ", '') ORDER BY c.name" LIMIT), 2},
    [DESK_CLAIM_CREATE] = {"desk_claim_create", CALL("desk_claim_create"), 2},
    [DESK_CLAIM_SHOW] = {"desk_claim_show", CALL("desk_claim_show"), 2},
    [DESK_CLAIM_ROTATE] = {"desk_claim_rotate", CALL("desk_claim_rotate"), 2},
    [DESK_CLAIM_REVOKE] = {"desk_claim_revoke", CALL("desk_claim_revoke"), 2},
    /* The allowlist is counted once for all claims, which may share its rows. */
    [DESK_CLAIM_STOCK] = {"desk_claim_stock", PAGE(
        "WITH lots AS MATERIALIZED (SELECT r.product_id, r.batch, count(*) n,"
        " count(*) FILTER (WHERE r.device_id IS NULL) unseen FROM allowlist r"
        " WHERE r.product_id IN (SELECT c.product_id FROM claim c WHERE c.kind = 'shared')"
        " AND" SEES("r.product_id") " GROUP BY 1, 2) "
        "SELECT claim_stock_json(c, x.serials, x.never_seen) j, c.name k,"
        " row_number() OVER (ORDER BY c.name) n FROM claim c JOIN product p ON p.id = c.product_id"
        " CROSS JOIN LATERAL (SELECT COALESCE(sum(s.n), 0)::bigint serials,"
        " COALESCE(sum(s.unseen), 0)::bigint never_seen FROM lots s"
        " WHERE s.product_id = c.product_id AND (c.batch IS NULL OR s.batch = c.batch)) x"
        " WHERE c.kind = 'shared' AND" SEES("p.id") FILTER("p.name", "product")
        " AND c.name > COALESCE(" ARG("after") ", '') ORDER BY c.name" LIMIT), 2},
    [DESK_CA_LIST] = {"desk_ca_list", PAGE(
        "SELECT ca_json(c)::json j, c.id::text k, row_number() OVER (ORDER BY c.id) n"
        " FROM ca c WHERE true" AFTER_ID("c.id") " ORDER BY c.id" LIMIT), 2},
    [DESK_CA_SHOW] = {"desk_ca_show", CALL("desk_ca_show"), 2},
    [DESK_CA_REGISTER] = {"desk_ca_register", CALL("desk_ca_register"), 2},
    [DESK_CA_ACTIVATE] = {"desk_ca_activate", CALL("desk_ca_activate"), 2},
    [DESK_CA_UPDATE] = {"desk_ca_update", CALL("desk_ca_update"), 2},
    [DESK_CA_CODE] = {"desk_ca_code", CALL("desk_ca_code"), 2},
    [DESK_CA_EXPORT] = {"desk_ca_export", CALL("desk_ca_export"), 2},
    [DESK_CA_IMPORT] = {"desk_ca_import", CALL("desk_ca_import"), 2},
    [DESK_UNKNOWN_CA] = {"desk_unknown_ca", CALL("desk_unknown_ca"), 2},
    [DESK_UNKNOWN_LIST] = {"desk_unknown_list", PAGE(
        "SELECT json_build_object('issuer_hash', encode(u.issuer_hash, 'hex'), 'issuer', u.issuer,"
        " 'aki', encode(u.aki, 'hex'), 'seen', u.seen, 'first_seen', utc(u.first_seen),"
        " 'last_seen', utc(u.last_seen), 'last_source', u.last_source, 'sample_pem', pem(u.sample),"
        " 'ca_fingerprint', encode(sha256(u.certificate), 'hex')) j,"
        " encode(u.issuer_hash, 'hex') k, row_number() OVER (ORDER BY u.issuer_hash) n"
        " FROM unknown_issuer u WHERE (SELECT desk_unscoped($1::jsonb))"
        " AND u.issuer_hash > decode(COALESCE(" ARG("after") ", ''), 'hex')"
        " ORDER BY u.issuer_hash" LIMIT), 2},
    [DESK_UNKNOWN_DISMISS] = {"desk_unknown_dismiss", CALL("desk_unknown_dismiss"), 2},
    /* devices by number; behind them, where UNPROVISIONED ones are asked for, the allowlist's
     * rows that were never seen: keys "d:NUMBER" and "a:PRODUCT:SERIAL". A device is looked up for
     * each of these; as NOT EXISTS the planner would join all devices for a page of ten. */
    [DESK_DEVICE_LIST] = {"desk_device_list", PAGE(
        "SELECT j, k, row_number() OVER (ORDER BY o, i, s) n FROM ("
        "(SELECT device_json(d)::json j, 'd:' || d.id k, 0 o, d.id i, '' s"
        " FROM device d JOIN product p ON p.id = d.product_id JOIN template t ON t.id = d.template_id"
        " WHERE" SEES("p.id") FILTER("d.state", "state") FILTER("p.name", "product")
        FILTER("t.name", "template")
        " AND (" ARG("approval") " IS NULL OR " ARG("approval") " ="
        " (SELECT COALESCE(w.decision, 'pending') FROM approval w WHERE w.device_id = d.id))"
        " AND (" ARG("claim") " IS NULL OR EXISTS (SELECT 1 FROM history h WHERE h.device_id = d.id"
        " AND h.claim = " ARG("claim") " AND h.outcome = 'ok'))"
        " AND COALESCE(" ARG("after") ", 'd:') LIKE 'd:%'"
        " AND d.id > COALESCE(nullif(split_part(" ARG("after") ", ':', 2), '')::bigint, 0)"
        " ORDER BY d.id" LIMIT ")"
        " UNION ALL "
        "(SELECT json_build_object('serial', r.serial, 'product', p.name, 'thing_name', NULL,"
        " 'state', 'UNPROVISIONED', 'state_since', utc(r.created_at), 'template', NULL,"
        " 'template_version', NULL, 'last_seen', NULL),"
        " 'a:' || r.product_id || ':' || r.serial_canonical, 1, r.product_id, r.serial_canonical"
        " FROM allowlist r JOIN product p ON p.id = r.product_id"
        " WHERE r.device_id IS NULL AND " ARG("state") " = 'UNPROVISIONED'"
        " AND " ARG("template") " IS NULL AND " ARG("approval") " IS NULL AND " ARG("claim") " IS NULL"
        " AND" SEES("p.id") FILTER("p.name", "product")
        " AND (COALESCE(" ARG("after") ", '') NOT LIKE 'a:%'"
        " OR (r.product_id, r.serial_canonical) > (nullif(split_part(" ARG("after") ", ':', 2), '')::bigint,"
        " substr(" ARG("after") ", length(split_part(" ARG("after") ", ':', 2)) + 4)))"
        " AND (SELECT x.id FROM device x WHERE x.product_id = r.product_id"
        " AND x.serial_canonical = r.serial_canonical) IS NULL"
        " ORDER BY r.product_id, r.serial_canonical" LIMIT ")) b ORDER BY o, i, s" LIMIT), 2},
    [DESK_DEVICE_SHOW] = {"desk_device_show", CALL("desk_device_show"), 2},
    [DESK_DEVICE_QUARANTINE] = {"desk_device_quarantine", CALL("desk_device_quarantine"), 2},
    [DESK_DEVICE_RELEASE] = {"desk_device_release", CALL("desk_device_release"), 2},
    [DESK_DEVICE_RESET] = {"desk_device_reset", CALL("desk_device_reset"), 2},
    [DESK_DEVICE_RETIRE] = {"desk_device_retire", CALL("desk_device_retire"), 2},
    [DESK_DEVICE_APPROVE] = {"desk_device_approve", CALL("desk_device_approve"), 2},
    [DESK_DEVICE_REJECT] = {"desk_device_reject", CALL("desk_device_reject"), 2},
    [DESK_DEVICE_SEEN] = {"desk_device_seen", CALL("desk_device_seen"), 2},
    [DESK_CERT_LIST] = {"desk_cert_list", PAGE(
        "SELECT certificate_json(c)::json j, c.id::text k, row_number() OVER (ORDER BY c.id) n"
        " FROM certificate c JOIN device d ON d.id = c.device_id JOIN product p ON p.id = d.product_id"
        " WHERE" SEES("p.id") FILTER("c.status", "status") FILTER("p.name", "product")
        SERIAL("d.serial_canonical")
        " AND (" ARG("expires_before") " IS NULL"
        " OR c.not_after < (" ARG("expires_before") ")::timestamptz)"
        AFTER_ID("c.id") " ORDER BY c.id" LIMIT), 2},
    [DESK_CERT_SHOW] = {"desk_certificate_show", CALL("desk_certificate_show"), 2},
    [DESK_CERT_REVOKE] = {"desk_certificate_revoke", CALL("desk_certificate_revoke"), 2},
    [DESK_CERT_WAITING] = {"desk_cert_waiting", PAGE(
        "SELECT jit_json(j)::json j, j.id::text k, row_number() OVER (ORDER BY j.id) n"
        " FROM jit_certificate j JOIN ca c ON c.id = j.ca_id"
        " WHERE j.status IN ('pending', 'active', 'inactive', 'failed') AND jit_sees($1::jsonb, j)"
        FILTER("j.status", "status") FILTER("c.name", "ca") AFTER_ID("j.id") " ORDER BY j.id" LIMIT), 2},
    [DESK_CERT_ACTIVATE] = {"desk_certificate_activate", CALL("desk_certificate_activate"), 2},
    [DESK_CERT_REGISTER] = {"desk_jit_register", CALL("desk_jit_register"), 2},
    [DESK_CERT_REGISTER_BEGIN] = {"desk_jit_begin", CALL("desk_jit_begin"), 2},
    [DESK_ATTEMPTS] = {"desk_attempts", CALL("desk_attempts"), 2},
    [DESK_SINK_LIST] = {"desk_sink_list", PAGE(
        "SELECT sink_json(s)::json j, s.name k, row_number() OVER (ORDER BY s.name) n FROM event_sink s"
        " WHERE (SELECT desk_unscoped($1::jsonb)) AND s.name > COALESCE(" ARG("after") ", '')"
        " ORDER BY s.name" LIMIT), 2},
    [DESK_SINK_CREATE] = {"desk_sink_create", CALL("desk_sink_create"), 2},
    [DESK_SINK_PAUSE] = {"desk_sink_pause", CALL("desk_sink_pause"), 2},
    [DESK_SINK_DELETE] = {"desk_sink_delete", CALL("desk_sink_delete"), 2},
    /* the newest first */
    [DESK_EVENT_LIST] = {"desk_event_list", PAGE(
        "SELECT event_json(o.at, o.id, o.event, o.payload)::json j, o.xid::text || ':' || o.id k,"
        " row_number() OVER (ORDER BY o.xid DESC, o.id DESC) n FROM outbox o"
        " WHERE (SELECT desk_unscoped($1::jsonb)) AND (" ARG("after") " IS NULL OR (o.xid, o.id) <"
        " (split_part(" ARG("after") ", ':', 1)::xid8, split_part(" ARG("after") ", ':', 2)::bigint))"
        " AND o.xid IS NOT NULL ORDER BY o.xid DESC, o.id DESC" LIMIT), 2},
    [DESK_DEAD_LIST] = {"desk_dead_list", PAGE(
        "SELECT dead_json(r)::json j, r.id::text k, row_number() OVER (ORDER BY r.id) n"
        " FROM event_retry r JOIN event_sink s ON s.id = r.sink_id"
        " WHERE (SELECT desk_unscoped($1::jsonb)) AND r.dead_at IS NOT NULL"
        FILTER("s.name", "receiver") AFTER_ID("r.id") " ORDER BY r.id" LIMIT), 2},
    [DESK_DEAD_END] = {"desk_dead_end", CALL("desk_dead_end"), 2},
    [DESK_STUCK_LIST] = {"desk_stuck_list", PAGE(
        "SELECT stuck_json(d, l)::json j, d.id::text k, row_number() OVER (ORDER BY d.id) n"
        " FROM state_limit l JOIN device d ON d.state = l.state AND d.retired_at IS NULL"
        " JOIN product p ON p.id = d.product_id JOIN template t ON t.id = d.template_id"
        " WHERE d.state NOT IN ('UNPROVISIONED', 'PROVISIONED') AND stuck_since(d, l) < now() AND" SEES("p.id")
        FILTER("d.state", "state") FILTER("p.name", "product") FILTER("t.name", "template")
        AFTER_ID("d.id") " ORDER BY d.id" LIMIT), 2},
    [DESK_LIMIT_LIST] = {"desk_limit_list", PAGE(
        "SELECT json_build_object('state', l.state, 'limit_s', l.seconds) j, l.state::text k,"
        " row_number() OVER (ORDER BY l.state::text) n FROM state_limit l"
        " WHERE l.state::text > COALESCE(" ARG("after") ", '') ORDER BY l.state::text" LIMIT), 2},
    [DESK_CRL_LIST] = {"desk_crl_list", PAGE(
        "SELECT crl_json(c)::json j, o.k, row_number() OVER (ORDER BY o.k) n FROM crl c,"
        " LATERAL (SELECT format('%s:%s:%s:%s', c.issuer_id, c.shards, lpad(c.shard::text, 3, '0'), c.is_delta) k) o"
        " WHERE (SELECT desk_unscoped($1::jsonb)) AND o.k > COALESCE(" ARG("after") ", '')"
        " ORDER BY o.k" LIMIT), 2},
    [DESK_TRUST_OWN] = {"desk_trust_own", CALL("desk_trust_own"), 2},
    [DESK_CRL_SIGN] = {"desk_crl_sign", CALL("desk_crl_sign"), 2},
    [DESK_CA_CRL] = {"desk_ca_crl", CALL("desk_ca_crl"), 2},
    [DESK_SIGNER_LIST] = {"desk_signer_list", PAGE(
        "SELECT signer_json(s)::json j, s.name k, row_number() OVER (ORDER BY s.name) n FROM manifest_signer s"
        " WHERE s.name > COALESCE(" ARG("after") ", '') ORDER BY s.name" LIMIT), 2},
    [DESK_SIGNER_CREATE] = {"desk_signer_create", CALL("desk_signer_create"), 2},
    [DESK_SIGNER_DELETE] = {"desk_signer_delete", CALL("desk_signer_delete"), 2},
    [DESK_BATCH_LIST] = {"desk_batch_list", PAGE(
        "SELECT batch_json(b) j, b.name k, row_number() OVER (ORDER BY b.name) n"
        " FROM factory_batch b JOIN product p ON p.id = b.product_id"
        " WHERE" SEES("p.id") FILTER("p.name", "product")
        " AND b.name > COALESCE(" ARG("after") ", '') ORDER BY b.name" LIMIT), 2},
    [DESK_BATCH_CREATE] = {"desk_batch_create", CALL("desk_batch_create"), 2},
    [DESK_BATCH_SHOW] = {"desk_batch_show",
        "SELECT batch_json(desk_batch($1::jsonb, " ARG("name") "))", 2},
    [DESK_BATCH_CLOSE] = {"desk_batch_close", CALL("desk_batch_close"), 2},
    [DESK_STATION_LIST] = {"desk_station_list", PAGE(
        "SELECT station_json(s) j, s.name k, row_number() OVER (ORDER BY s.name) n"
        " FROM factory_station s JOIN factory_batch b ON b.id = s.batch_id"
        " WHERE" SEES("b.product_id") FILTER("b.name", "batch")
        " AND s.name > COALESCE(" ARG("after") ", '') ORDER BY s.name" LIMIT), 2},
    [DESK_STATION_CREATE] = {"desk_station_create", CALL("desk_station_create"), 2},
    [DESK_STATION_REVOKE] = {"desk_station_revoke", CALL("desk_station_revoke"), 2},
    [DESK_FACTORY_RECONCILE] = {"desk_factory_reconcile", CALL("desk_factory_reconcile"), 2},
    [DESK_ENROLLMENT_LIST] = {"desk_enrollment_list", PAGE(
        "SELECT enrollment_json(x)::json j, x.name_lower k, row_number() OVER (ORDER BY x.name_lower) n"
        " FROM enrollment x JOIN product p ON p.id = x.product_id JOIN template t ON t.id = x.template_id"
        " WHERE x.grouped = (" ARG("grouped") ")::boolean AND" SEES("p.id") FILTER("p.name", "product")
        FILTER("t.name", "template") FILTER("x.attestation", "attestation")
        " AND x.name_lower > COALESCE(" ARG("after") ", '') ORDER BY x.name_lower" LIMIT), 2},
    [DESK_ENROLLMENT_CREATE] = {"desk_enrollment_create", CALL("desk_enrollment_create"), 2},
    [DESK_ENROLLMENT_IMPORT] = {"desk_enrollment_import", CALL("desk_enrollment_import"), 2},
    [DESK_ENROLLMENT_SHOW] = {"desk_enrollment_show", CALL("desk_enrollment_show"), 2},
    [DESK_ENROLLMENT_UPDATE] = {"desk_enrollment_update", CALL("desk_enrollment_update"), 2},
    [DESK_ENROLLMENT_DELETE] = {"desk_enrollment_delete", CALL("desk_enrollment_delete"), 2},
    [DESK_ENDPOINT_LIST] = {"desk_endpoint_list", PAGE(
        "SELECT endpoint_json(b) j, b.host k, row_number() OVER (ORDER BY b.host) n FROM broker_endpoint b"
        " WHERE b.host > COALESCE(" ARG("after") ", '') ORDER BY b.host" LIMIT), 2},
    [DESK_ENDPOINT_PUT] = {"desk_endpoint_put", CALL("desk_endpoint_put"), 2},
    [DESK_ENDPOINT_DELETE] = {"desk_endpoint_delete", CALL("desk_endpoint_delete"), 2},
    [DESK_CERT_EXPIRING] = {"desk_cert_expiring", PAGE(
        "SELECT expiring_json(c, d)::json j, extract(epoch FROM c.not_after)::text || ':' || c.id k,"
        " row_number() OVER (ORDER BY c.not_after, c.id) n FROM certificate c"
        " JOIN device d ON d.id = c.device_id AND d.retired_at IS NULL"
        " JOIN product p ON p.id = d.product_id JOIN template t ON t.id = c.template_id"
        " WHERE c.status IN ('pending', 'current') AND c.not_after > now()"
        " AND c.not_after <= now() + make_interval(secs => COALESCE((" ARG("seconds") ")::bigint, 2592000))"
        " AND (" ARG("silent_s") " IS NULL OR silent_since(d) < now() - make_interval(secs => (" ARG("silent_s") ")::bigint))"
        " AND (" ARG("after") " IS NULL OR (c.not_after, c.id) > (to_timestamp(split_part(" ARG("after") ", ':', 1)::numeric),"
        " split_part(" ARG("after") ", ':', 2)::bigint)) AND expiry_counts(c) AND" SEES("p.id")
        FILTER("p.name", "product") FILTER("t.name", "template") " ORDER BY c.not_after, c.id" LIMIT), 2},
    [DESK_CERT_FORECAST] = {"desk_cert_forecast", PAGE(
        "SELECT json_build_object('date', f.date, 'renewals', f.renewals, 'ends', f.ends) j, f.date::text k,"
        " row_number() OVER (ORDER BY f.date) n FROM forecast($1::jsonb, " ARG("product") ", " ARG("template") ","
        " COALESCE(" ARG("by") ", 'day')) f WHERE f.date > COALESCE((" ARG("after") ")::date, '-infinity')"
        " ORDER BY f.date" LIMIT), 2},
    [DESK_LIMIT_SET] = {"desk_state_limit", CALL("desk_state_limit"), 2},
    [DESK_AUDIT_LIST] = {"desk_audit_list", PAGE(
        "SELECT json_build_object('id', u.id, 'at', utc(u.at), 'actor', u.actor, 'source', u.source,"
        " 'action', u.action, 'object', u.object, 'detail', u.detail, 'hash', encode(u.hash, 'hex')) j, u.id::text k,"
        " row_number() OVER (ORDER BY u.id DESC) n FROM audit u"
        " WHERE (SELECT desk_unscoped($1::jsonb))" FILTER("u.object", "object")
        FILTER("u.actor", "actor")
        " AND u.id < COALESCE((" ARG("after") ")::bigint, 9223372036854775807)"
        " ORDER BY u.id DESC" LIMIT), 2},
    [DESK_AUDIT_EXPORT] = {"desk_audit_export", PAGE(
        "SELECT json_build_object('id', u.id, 'hash', encode(u.hash, 'hex'), 'record', audit_record(u.prev,"
        " u.id, u.at, u.actor, u.source, u.action, u.object, u.detail)) j, u.id::text k,"
        " row_number() OVER (ORDER BY u.id) n FROM audit u"
        " WHERE (SELECT desk_unscoped($1::jsonb))" AFTER_ID("u.id") " ORDER BY u.id" LIMIT), 2},
    [DESK_AUDIT_VERIFY] = {"desk_audit_verify", CALL("desk_audit_verify"), 2},
    [DESK_STATUS] = {"desk_status", CALL("desk_status"), 2},
    [DESK_DOCTOR] = {"desk_doctor", CALL("desk_doctor"), 2},
    [DESK_ADMIN_TOKEN_LIST] = {"desk_admin_token_list", PAGE(
        "SELECT admin_token_json(t)::json j, t.name k, row_number() OVER (ORDER BY t.name) n"
        " FROM admin_token t WHERE (SELECT desk_unscoped($1::jsonb))"
        " AND t.name > COALESCE(" ARG("after") ", '') ORDER BY t.name" LIMIT), 2},
    [DESK_ADMIN_TOKEN_CREATE] = {"desk_admin_token_create", CALL("desk_admin_token_create"), 2},
    [DESK_ADMIN_TOKEN_REVOKE] = {"desk_admin_token_revoke", CALL("desk_admin_token_revoke"), 2},
    /* not calls of the API */
    [S_LOGIN] = {"desk_login",
        "SELECT t.name, t.role, p.name, p.id FROM admin_token t"
        " LEFT JOIN product p ON p.id = t.product_id WHERE t.hash = $1 AND t.revoked_at IS NULL", 1},
    [S_IMPORT_TABLE] = {"desk_import_table",
        "CREATE TEMPORARY TABLE allowlist_import (line integer, serial text, canonical text,"
        " pin bytea, batch text, reason text) ON COMMIT DROP", 0},
    [S_IMPORT] = {"desk_allowlist_import", CALL("desk_allowlist_import"), 2},
};
/* clang-format on */
const struct stmt_set desk_statements = {stmts, ARRAY_LEN(stmts)};

static enum err answer_take(const PGresult *r, struct arena *arena, struct desk_answer *ret_answer)
{
    const char *json = PQntuples(r) == 1 ? db_value(r, 0, 0) : NULL;
    bool list = PQnfields(r) == 3;
    const char *next = json && list ? db_value(r, 0, 1) : NULL;
    if (!json)
        return ERR_NOT_FOUND;
    struct desk_answer answer = {
        .json = arena_strdup(arena, json),
        .next = next ? arena_strdup(arena, next) : NULL,
        .rows = list ? atoi(PQgetvalue(r, 0, 2)) : 0,
    };
    if (!answer.json || (next && !answer.next))
        return ERR_NO_MEMORY;
    *ret_answer = answer;
    return ERR_OK;
}

struct call {
    const struct stmt *stmt;
    const char *op;
    const char *args;
    struct arena *arena;
    struct desk_answer answer;
};

static enum err call_body(struct db_conn *c, void *ctx)
{
    struct call *call = ctx;
    const char *params[] = {call->op, call->args};
    DB_RESULT r = NULL;
    enum err e = db_exec(c, call->stmt, params, &r);
    return e ? e : answer_take(r, call->arena, &call->answer);
}

/* In a transaction, which unlike a bare statement is not asked again when its answer was lost: the
 * operator is told that it is not known. */
enum err desk_call(struct db *db, enum desk_call call, const char *op, const char *args,
                   struct arena *arena, struct desk_answer *ret_answer, char *ret_message)
{
    struct call c = {.stmt = &stmts[call], .op = op, .args = args, .arena = arena};
    enum err e = db_transaction(db, call_body, &c, ret_message);
    if (!e)
        *ret_answer = c.answer;
    return e;
}

struct import {
    const char *op;
    const char *args;
    struct bytes rows;
    struct arena *arena;
    struct desk_answer answer;
};

static enum err rows_copy(struct db_conn *c, struct bytes rows)
{
    PGconn *pg = db_raw(c);
    PGresult *r = PQexec(pg, "COPY allowlist_import FROM STDIN");
    bool good = PQresultStatus(r) == PGRES_COPY_IN;
    PQclear(r);
    if (!good)
        return ERR_UNAVAILABLE;
    enum { PIECE = 1 << 20 };
    for (size_t at = 0; at < rows.len && good; at += PIECE) {
        size_t rest = rows.len - at;
        good = PQputCopyData(pg, (const char *)rows.data + at,
                             (int)(rest < PIECE ? rest : PIECE)) == 1;
    }
    good = PQputCopyEnd(pg, good ? NULL : "interrupted") == 1 && good;
    while ((r = PQgetResult(pg))) {
        good = good && PQresultStatus(r) == PGRES_COMMAND_OK;
        PQclear(r);
    }
    return good ? ERR_OK : ERR_SYSTEM;
}

static enum err import_body(struct db_conn *c, void *ctx)
{
    struct import *i = ctx;
    const char *params[] = {i->op, i->args};
    DB_RESULT r = NULL;
    enum err e = db_exec(c, &stmts[S_IMPORT_TABLE], NULL, NULL);
    if (!e)
        e = rows_copy(c, i->rows);
    if (!e)
        e = db_exec(c, &stmts[S_IMPORT], params, &r);
    return e ? e : answer_take(r, i->arena, &i->answer);
}

enum err desk_import(struct db *db, const char *op, const char *args, struct bytes rows,
                     struct arena *arena, struct desk_answer *ret_answer, char *ret_message)
{
    struct import i = {.op = op, .args = args, .rows = rows, .arena = arena};
    enum err e = db_transaction(db, import_body, &i, ret_message);
    if (!e)
        *ret_answer = i.answer;
    return e;
}

enum err desk_login(struct db *db, struct bytes hash, struct arena *arena,
                    struct desk_operator *ret_operator)
{
    const char *params[] = {db_bytea(arena, hash.data, hash.len)};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_LOGIN], params, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_NOT_FOUND;
    const char *product = db_value(r, 0, 2);
    struct desk_operator o = {
        .name = arena_strdup(arena, PQgetvalue(r, 0, 0)),
        .role = arena_strdup(arena, PQgetvalue(r, 0, 1)),
        .product = product ? arena_strdup(arena, product) : NULL,
        .product_id = product ? atoll(PQgetvalue(r, 0, 3)) : 0,
    };
    if (!o.name || !o.role || (product && !o.product))
        return ERR_NO_MEMORY;
    *ret_operator = o;
    return ERR_OK;
}
