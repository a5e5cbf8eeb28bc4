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
     "'unknown_issuers', json_build_object('all', (SELECT count(*) FROM unknown_issuer)),"
     "'verify_overdue', json_build_object('all', (SELECT count(*) FROM device d"
     " WHERE d.state = 'VERIFY' AND d.verify_by < now())),"
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
