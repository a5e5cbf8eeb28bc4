#include "store/gauges.h"

static const struct stmt stmts[] = {
    {"gauges",
     "SELECT json_build_object("
     "'devices', (SELECT COALESCE(json_object_agg(s.state, s.n), '{}')"
     " FROM (SELECT d.state, count(*) n FROM device d GROUP BY d.state) s),"
     "'certificates', (SELECT json_object_agg(b.name, COALESCE(s.n, 0))"
     " FROM (VALUES ('expired'), ('7d'), ('30d'), ('90d'), ('more')) b(name) LEFT JOIN"
     " (SELECT CASE WHEN c.not_after <= now() THEN 'expired'"
     " WHEN c.not_after <= now() + interval '7 days' THEN '7d'"
     " WHEN c.not_after <= now() + interval '30 days' THEN '30d'"
     " WHEN c.not_after <= now() + interval '90 days' THEN '90d' ELSE 'more' END AS name,"
     " count(*) n FROM certificate c WHERE c.status IN ('pending', 'current') GROUP BY 1) s"
     " USING (name)),"
     "'issuer_not_after', (SELECT COALESCE(json_object_agg(c.name,"
     " floor(extract(epoch FROM c.not_after))), '{}')"
     " FROM ca c WHERE c.kind = 'issuing' AND c.active),"
     "'crl_next_update', (SELECT COALESCE(json_object_agg(q.name, q.ends), '{}') FROM"
     " (SELECT a.name, floor(extract(epoch FROM min(c.next_update))) AS ends FROM crl c"
     " JOIN ca a ON a.id = c.issuer_id WHERE a.not_after > now() GROUP BY 1) q),"
     "'unknown_issuers', json_build_object('all', (SELECT count(*) FROM unknown_issuer)),"
     "'verify_overdue', json_build_object('all', (SELECT count(*) FROM device d"
     " WHERE d.state = 'VERIFY' AND d.verify_by < now())),"
     "'claims', (SELECT json_object_agg(b.name, COALESCE(s.n, 0)) FROM"
     " unnest(ARRAY['active', 'grace', 'exhausted', 'expired', 'revoked']) b(name) LEFT JOIN"
     " (SELECT claim_state(c) AS name, count(*) n FROM claim c GROUP BY 1) s USING (name)),"
     "'claims_expiring', (SELECT json_object_agg(b.days || 'd', (SELECT count(*) FROM claim c"
     " WHERE c.kind = 'shared' AND c.revoked_at IS NULL AND NOT claim_superseded(c)"
     " AND c.enrol_until > now() AND c.enrol_until <= now() + make_interval(days => b.days)))"
     " FROM unnest(ARRAY[7, 30, 90, 180]) b(days)),"
     "'claim_budget_used', json_build_object('all', (SELECT COALESCE(max(trunc(c.devices::numeric"
     " / c.budget, 4)), 0) FROM claim c"
     " WHERE c.kind = 'shared' AND claim_state(c) NOT IN ('revoked', 'expired')"
     " AND NOT claim_superseded(c))),"
     "'claim_certificates_pending', json_build_object('all', (SELECT count(*)"
     " FROM claim_certificate w WHERE w.ended_at IS NULL)),"
     "'devices_stuck', (SELECT json_object_agg(l.state, (SELECT count(*) FROM device d"
     " WHERE d.state = l.state AND d.retired_at IS NULL"
     " AND d.state NOT IN ('UNPROVISIONED', 'PROVISIONED') AND stuck_since(d, l) < now()))"
     " FROM state_limit l),"
     "'jit_certificates', (SELECT json_object_agg(b.name, (SELECT count(*) FROM jit_certificate j"
     " WHERE j.status = b.name)) FROM unnest(ARRAY['pending', 'active', 'inactive', 'failed'])"
     " b(name)),"
     "'events_behind', (SELECT COALESCE(json_object_agg(s.name, sink_behind_s(s)), '{}')"
     " FROM event_sink s WHERE NOT s.paused AND (s.kind = 'webhook' OR s.delivered > 0)),"
     "'events_dead', (SELECT COALESCE(json_object_agg(s.name, (SELECT count(*) FROM event_retry r"
     " WHERE r.sink_id = s.id AND r.dead_at IS NOT NULL)), '{}') FROM event_sink s),"
     "'quarantine_spared', json_build_object('all', (SELECT count(*) FROM outbox o"
     " WHERE o.event = 'quarantine.storm' AND o.at > now() - interval '1 hour')))",
     0},
};
const struct stmt_set gauges_statements = {stmts, ARRAY_LEN(stmts)};

enum err gauges_load(struct db *db, struct arena *arena, const char **ret_json)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[0], NULL, &r, NULL);
    if (e)
        return e;
    const char *json = arena_strdup(arena, PQgetvalue(r, 0, 0));
    if (!json)
        return ERR_NO_MEMORY;
    *ret_json = json;
    return ERR_OK;
}
