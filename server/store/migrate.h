/*
 * Migrations: append-only SQL files of schema/, built into the program. Each states the oldest
 * binary that can run with it, so that a rolling upgrade never kills a replica that restarts.
 * Threads: one, at start-up; several processes are kept apart by an advisory lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "store/db.h"
#include "store/statements.h"

struct migration {
    int version;
    const char *name;
    int oldest_binary; /* schema number a running binary must at least be built for */
    bool transaction;  /* false: CREATE INDEX CONCURRENTLY and its like, one statement a file */
    const char *sql;
};

extern const struct migration migrations[];
extern const size_t migration_count;

/* Applies what is missing, each in a transaction of its own unless it says otherwise, under an
 * advisory lock; ret_applied: how many. ret_message as db_transaction. */
enum err migrate_run(struct db *db, int *ret_applied, char *ret_message) MUST_CHECK;

/* Whether this binary can work with the schema as it is: ERR_CONFLICT and a message when the
 * schema is older than the binary needs or too new for it. ret_version: 0 for an empty database. */
enum err migrate_check(struct db *db, int *ret_version, char *ret_message) MUST_CHECK;

extern const struct stmt_set migrate_statements;
