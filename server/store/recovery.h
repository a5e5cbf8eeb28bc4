/*
 * Making a registry again (schema/0028_recovery.sql): lines are staged on a connection and applied
 * in its transaction. Threads: any.
 */
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/statements.h"

/* Nobody enrols until the transaction ends. */
enum err recovery_begin(struct db_conn *conn) MUST_CHECK;

/* The certificates of the CAs that the registry has, DER, in the arena. */
enum err recovery_cas_load(struct db_conn *conn, struct arena *arena, struct bytes **ret_ders,
                           size_t *ret_count) MUST_CHECK;

/* A JSON array of entries. */
enum err recovery_stage(struct db_conn *conn, const char *json) MUST_CHECK;

/* What came of it as a JSON object, in the arena: before, after, gaps. ERR_DENIED: db_message says
 * why the registry is not one to rebuild. */
enum err recovery_apply(struct db_conn *conn, bool onto_existing, struct arena *arena,
                        const char **ret_json) MUST_CHECK;

extern const struct stmt_set recovery_statements;
