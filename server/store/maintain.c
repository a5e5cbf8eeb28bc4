#include "store/maintain.h"

#include <stdio.h>
#include <stdlib.h>

/* One transaction: the lock goes with it, so a leader that lost its connection leads no more. */
static const struct stmt stmts[] = {
    {"maintain_partitions",
     "SELECT CASE WHEN pg_try_advisory_xact_lock(1836413806) THEN"
     " (SELECT partition_maintain('history', $1::int) + partition_maintain('outbox', $2::int)"
     " + partition_maintain('audit', $3::int) FROM gate_prune()) ELSE 0 END",
     3},
};
const struct stmt_set maintain_statements = {stmts, ARRAY_LEN(stmts)};

enum err maintain_run(struct db *db, const struct maintain_settings *s, int *ret_dropped)
{
    char history[12], outbox[12], audit[12];
    snprintf(history, sizeof(history), "%d", s->history_days);
    snprintf(outbox, sizeof(outbox), "%d", s->outbox_days);
    snprintf(audit, sizeof(audit), "%d", s->audit_days);
    const char *params[] = {history, outbox, audit};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[0], params, &r, NULL);
    if (!e)
        *ret_dropped = atoi(PQgetvalue(r, 0, 0));
    return e;
}
