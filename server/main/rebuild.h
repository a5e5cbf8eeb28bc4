/* `musterd registry rebuild`: a lost registry made again. Threads: main only. */
#pragma once

#include "enroll/recovery.h"
#include "ops/config.h"

/* What the command line says; borrowed texts. */
struct rebuild_request {
    struct recovery_order order; /* keys are not read yet */
    const char *key_files[RECOVERY_MAX_FILES];
    size_t key_file_count; /* 0: the configured journal's */
    bool json;
};

/* Prints what came of it. The exit code: 0 done without gaps, 1 with gaps, 2 wrong usage, 3 nothing
 * was done, for the reason on standard error. */
int rebuild_command_run(const struct config *config, const struct rebuild_request *rq);
