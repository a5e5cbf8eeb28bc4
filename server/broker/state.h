/*
 * The table and its policies in a file, for a broker that starts while no musterd is there to fill
 * it. The file is written beside the old one and takes its place whole; what was cut off or changed
 * is not read at all. Threads: the broker's only; state_write also in a forked child.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "broker/policies.h"
#include "broker/table.h"

/* What the file says of itself. */
struct state_head {
    int64_t saved_s;  /* wall clock */
    int64_t position; /* of the change log, as in a batch */
};

/* ERR_SYSTEM: errno says why. The file is readable by its owner only, and synced. */
enum err state_write(const char *path, const struct table *table, const struct policies *policies,
                     const struct state_head *head) MUST_CHECK;

/* Fills both, which were empty. ERR_NOT_FOUND: no file; ERR_CONFLICT: saved before oldest_s;
 * ERR_INVALID: not one of ours, or damaged; ERR_DENIED: others than its owner may write it, or that
 * is neither this user nor root; ERR_SYSTEM: errno says why. After an error both are empty. */
enum err state_read(const char *path, int64_t oldest_s, struct table *table,
                    struct policies *policies, struct state_head *ret_head) MUST_CHECK;
