/*
 * Runs of slots of a rate limit, leased from the registry: what makes limits hold across
 * replicas. One statement and one commit a lease; nothing is held afterwards, slots that are not
 * used lapse. Threads: any.
 */
#pragma once

#include "store/db.h"
#include "store/statements.h"

struct lease_request {
    const char *kind; /* "global", "template" or "claim" */
    int64_t id;
    bool renewal;
    unsigned count;         /* at most so many slots */
    int64_t common_gap_us;  /* between two slots of the common lane */
    int64_t renewal_gap_us; /* of the renewals' lane; 0: there is none */
    int64_t back_us;        /* no slot is older: the burst */
    int64_t ahead_us;       /* none further ahead: the queue */
};

/* Slots at first_us, first_us + gap_us, ...; database time, as is now_us. */
struct lease_run {
    int64_t now_us;
    int64_t first_us;
    int64_t gap_us;
    unsigned granted; /* 0: the queue is full */
};

enum err lease_take(struct db *db, const struct lease_request *request,
                    struct lease_run *ret_run) MUST_CHECK;

extern const struct stmt_set lease_statements;
