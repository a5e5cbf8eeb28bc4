/*
 * Keeping the partitioned tables: the next months' partitions exist, old ones go; and old rows of
 * the gate's changes. Whoever holds the advisory lock does it; the others do nothing. Threads: any.
 */
#pragma once

#include "store/db.h"
#include "store/statements.h"

struct maintain_settings {
    int history_days;
    int outbox_days;
    int audit_days;
};

/* ret_dropped: partitions dropped; 0 when another replica is at it. */
enum err maintain_run(struct db *db, const struct maintain_settings *settings,
                      int *ret_dropped) MUST_CHECK;

extern const struct stmt_set maintain_statements;
