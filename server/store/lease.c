#include "store/lease.h"

#include <stdio.h>
#include <stdlib.h>

static const struct stmt stmts[] = {
    {"rate_lease",
     "SELECT now_us, first_us, gap_us, granted FROM rate_lease($1, $2::bigint, $3::boolean,"
     " $4::integer, $5::bigint, $6::bigint, $7::bigint, $8::bigint)",
     8},
};
const struct stmt_set lease_statements = {stmts, ARRAY_LEN(stmts)};

enum { NUMBER_BYTES = 24 };

enum err lease_take(struct db *db, const struct lease_request *q, struct lease_run *ret_run)
{
    const int64_t numbers[] = {q->id,      q->count,   q->common_gap_us, q->renewal_gap_us,
                               q->back_us, q->ahead_us};
    char text[ARRAY_LEN(numbers)][NUMBER_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        snprintf(text[i], sizeof(text[i]), "%lld", (long long)numbers[i]);
    const char *params[] = {q->kind, text[0], q->renewal ? "true" : "false",
                            text[1], text[2], text[3],
                            text[4], text[5]};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[0], params, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_SYSTEM;
    *ret_run = (struct lease_run){
        .now_us = atoll(PQgetvalue(r, 0, 0)),
        .first_us = atoll(PQgetvalue(r, 0, 1)),
        .gap_us = atoll(PQgetvalue(r, 0, 2)),
        .granted = (unsigned)atoi(PQgetvalue(r, 0, 3)),
    };
    return ERR_OK;
}
