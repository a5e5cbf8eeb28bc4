/* Against a migrated database, named on the command line: host and port. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/device.h"
#include "store/db.h"
#include "store/statements.h"

static int failures;

static struct db_conn *conn;

static void check(bool good, const char *what, const char *detail)
{
    if (good)
        return;
    fprintf(stderr, "%s: %s\n", what, detail);
    failures++;
}

/* A statement with an impossible parameter list would fail here and not at its first use. */
static void statements_prepare(void)
{
    for (size_t i = 0; i < statement_set_count; i++) {
        for (size_t k = 0; k < statement_sets[i]->count; k++) {
            const struct stmt *s = &statement_sets[i]->stmts[k];
            PGresult *r = PQprepare(db_raw(conn), s->name, s->sql, s->params, NULL);
            check(PQresultStatus(r) == PGRES_COMMAND_OK, s->name, PQresultErrorMessage(r));
            PQclear(r);
            r = PQdescribePrepared(db_raw(conn), s->name);
            check(PQnparams(r) == s->params, s->name, "another number of parameters than it says");
            PQclear(r);
        }
    }
}

static bool schema_allows(const char *from, const char *to)
{
    const char *params[] = {from, to};
    PGresult *r = PQexecParams(
        db_raw(conn), "SELECT 1 FROM device_transition WHERE from_state = $1 AND to_state = $2", 2,
        NULL, params, NULL, NULL, 0);
    bool there = PQntuples(r) == 1;
    PQclear(r);
    return there;
}

static void transitions_agree(void)
{
    for (int from = 0; from < DEVICE_STATE_COUNT; from++) {
        for (int to = 0; to < DEVICE_STATE_COUNT; to++) {
            const char *a = device_state_name((enum device_state)from),
                       *b = device_state_name((enum device_state)to);
            char what[80];
            snprintf(what, sizeof(what), "%s to %s", a, b);
            if (from != to)
                check(schema_allows(a, b) ==
                          device_move_legal((enum device_state)from, (enum device_state)to),
                      what, "C and schema disagree");
        }
    }
}

int main(int argc, char **argv)
{
    struct db *db = NULL;
    if (argc != 3)
        return 2;
    struct db_config config = {.host = argv[1],
                               .port = argv[2],
                               .name = "muster",
                               .user = "muster",
                               .pool_size = 1,
                               .connect_timeout_s = 5,
                               .statement_timeout_ms = 10000,
                               .acquire_timeout_ms = 5000};
    if (db_new(&config, &db) || db_acquire(db, &conn))
        return 2;
    statements_prepare();
    transitions_agree();
    db_release(db, conn);
    db_free(db);
    return failures ? 1 : 0;
}
