#include "store/maintain.h"

#include <stdio.h>
#include <stdlib.h>

/* One transaction: the lock goes with it, so a leader that lost its connection leads no more. */
static const struct stmt stmts[] = {
    {"maintain_partitions",
     "SELECT CASE WHEN pg_try_advisory_xact_lock(1836413806) THEN"
     " (SELECT partition_maintain('history', $1::int) + partition_maintain('outbox', $2::int)"
     " + partition_maintain('audit', $3::int) FROM gate_prune(), revocation_prune(), scep_prune(), "
     "dps_prune()) ELSE 0 END",
     3},
    {"maintain_claim_certificates",
     "SELECT CASE WHEN pg_try_advisory_xact_lock(1836413808) THEN claim_certificate_sweep()"
     " ELSE 0 END",
     0},
    {"maintain_stuck",
     "SELECT t.state, t.devices FROM (SELECT 1 WHERE pg_try_advisory_xact_lock(1836413809)) leader"
     " CROSS JOIN LATERAL stuck_tell() t",
     0},
    {"maintain_claim_alerts",
     "SELECT claim, product, kind, threshold, days_left, percent, serials, never_seen"
     " FROM claim_alerts()",
     0},
};
const struct stmt_set maintain_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_PARTITIONS, S_CLAIM_CERTIFICATES, S_STUCK, S_CLAIM_ALERTS };

enum err maintain_run(struct db *db, const struct maintain_settings *s, int *ret_dropped)
{
    char history[12], outbox[12], audit[12];
    snprintf(history, sizeof(history), "%d", s->history_days);
    snprintf(outbox, sizeof(outbox), "%d", s->outbox_days);
    snprintf(audit, sizeof(audit), "%d", s->audit_days);
    const char *params[] = {history, outbox, audit};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_PARTITIONS], params, &r, NULL);
    if (!e)
        *ret_dropped = atoi(PQgetvalue(r, 0, 0));
    return e;
}

enum err maintain_claim_certificates(struct db *db, int *ret_revoked)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_CLAIM_CERTIFICATES], NULL, &r, NULL);
    if (!e)
        *ret_revoked = atoi(PQgetvalue(r, 0, 0));
    return e;
}

static enum err alert_take(const PGresult *r, int i, struct arena *arena, struct claim_alert *ret)
{
    const char *percent = db_value(r, i, 5);
    *ret = (struct claim_alert){
        .claim = arena_strdup(arena, PQgetvalue(r, i, 0)),
        .product = arena_strdup(arena, PQgetvalue(r, i, 1)),
        .kind = arena_strdup(arena, PQgetvalue(r, i, 2)),
        .threshold = atoll(PQgetvalue(r, i, 3)),
        .days_left = atoll(PQgetvalue(r, i, 4)),
        .percent = percent ? atoll(percent) : -1,
        .serials = atoll(PQgetvalue(r, i, 6)),
        .never_seen = atoll(PQgetvalue(r, i, 7)),
    };
    return ret->claim && ret->product && ret->kind ? ERR_OK : ERR_NO_MEMORY;
}

enum err maintain_claim_alerts(struct db *db, struct arena *arena, struct claim_alert **ret_alerts,
                               size_t *ret_count)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_CLAIM_ALERTS], NULL, &r, NULL);
    if (e)
        return e;
    int count = PQntuples(r);
    struct claim_alert *alerts = arena_alloc(arena, ((size_t)count + 1) * sizeof(*alerts));
    if (!alerts)
        return ERR_NO_MEMORY;
    for (int i = 0; i < count && !e; i++)
        e = alert_take(r, i, arena, &alerts[i]);
    if (e)
        return e;
    *ret_alerts = alerts;
    *ret_count = (size_t)count;
    return ERR_OK;
}

enum err maintain_stuck(struct db *db, struct stuck_count ret[STUCK_MAX_STATES], size_t *ret_count)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_STUCK], NULL, &r, NULL);
    if (e)
        return e;
    *ret_count = 0;
    for (int i = 0; i < PQntuples(r) && i < STUCK_MAX_STATES; i++) {
        struct stuck_count *c = &ret[(*ret_count)++];
        snprintf(c->state, sizeof(c->state), "%s", PQgetvalue(r, i, 0));
        c->devices = atoll(PQgetvalue(r, i, 1));
    }
    return ERR_OK;
}
