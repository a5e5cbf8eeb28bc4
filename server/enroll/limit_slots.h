/*
 * The arithmetic of rate limits, without clock, lock or database. A limit is a line of slots in
 * database time. An enrolment passes in one slot, not before it and at most `tolerance` after it;
 * so in any t seconds, whatever the replicas do, at most
 *
 *   per_second * t + burst        enrolments pass (one more where burst is below 4).
 *
 * Threads: owner only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/lease.h"

enum { LIMIT_MAX_PER_SECOND = 100000, LIMIT_MAX_BURST = 1000000, LIMIT_MAX_SHARE = 90 };

/* per_second 0: no limit. burst 0: as many as per_second. */
struct limit_rate {
    unsigned per_second;
    unsigned burst;
};

/* What follows from a rate; all in microseconds. */
struct limit_plan {
    int64_t common_gap_us;
    int64_t renewal_gap_us; /* 0: renewals have no lane of their own */
    int64_t tolerance_us;   /* how late a slot may be used */
    int64_t back_us;        /* how old a slot may be when it is leased; the rest of the tolerance
                               is for the way from the database to the passing */
};

/* renewal_share in percent, at most LIMIT_MAX_SHARE; the rate is one, not none. */
struct limit_plan limit_plan(struct limit_rate rate, unsigned renewal_share);

/* One slot on the local monotonic clock. */
struct limit_slot {
    int64_t opens_us;
    int64_t closes_us;
};

/* Slots that were leased and not yet used. */
struct limit_lease {
    struct limit_slot next;
    int64_t gap_us;
    unsigned left;
};

/* sent_us and got_us: the local time before the lease was asked for and after it came. The
 * database's clock was read somewhere between; each end of a slot is taken from the side that
 * lets less through. */
struct limit_lease limit_lease(const struct lease_run *run, int64_t tolerance_us, int64_t sent_us,
                               int64_t got_us);

/* Takes the next slot that has not lapsed; false: none is left. */
bool limit_lease_next(struct limit_lease *l, int64_t now_us, struct limit_slot *ret_slot);

/* The next free time to come back, whole seconds from now: each caller gets another one. *next_us
 * is the line of those who were refused; the first of them comes when the queue of now is over. */
int limit_retry_s(int64_t *next_us, int64_t now_us, int64_t queue_us, int64_t step_us);
