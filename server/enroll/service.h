/*
 * What every protocol adapter works with: the registry, the catalog of cached configuration,
 * the pipeline's settings. Made by main, outlives every request. Threads: any.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "store/db.h"

struct catalog;
struct committer;
struct trail_limit;

struct service {
    struct db *db;
    struct catalog *catalog;
    struct committer *committer;
    struct trail_limit *trail_limit;
    const char *default_template; /* NULL: none */
    const char *ca_dir;           /* folder of the issuing keys */
    atomic_bool draining;
};
