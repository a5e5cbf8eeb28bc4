/* Every prepared statement, so that a test can prepare each against the migrated schema. */
#pragma once

#include "store/db.h"

struct stmt_set {
    const struct stmt *stmts;
    size_t count;
};

extern const struct stmt_set *const statement_sets[];
extern const size_t statement_set_count;
