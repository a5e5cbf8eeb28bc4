/* The registry's part of GET /metrics. Threads: any. */
#pragma once

#include "store/db.h"
#include "store/statements.h"

/* A JSON object in the arena: a member a gauge, each an object of numbers by label. Counts the
 * tables: meant for a scrape every few seconds, not for a request of a device. */
enum err gauges_load(struct db *db, struct arena *arena, const char **ret_json) MUST_CHECK;

extern const struct stmt_set gauges_statements;
