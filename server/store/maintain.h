/*
 * What is done without being asked: partitions are kept, old rows of the gate's changes go,
 * certificates that no claim's device registered are revoked, claims that near their end are told
 * of. Whoever holds the advisory lock of a job does it; the others do nothing. Threads: any.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
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

/* ret_revoked: certificates whose time to be registered was over; 0 likewise. */
enum err maintain_claim_certificates(struct db *db, int *ret_revoked) MUST_CHECK;

/* A threshold that a claim has just passed: kind "expiring" in days before the end of its
 * enrolment, "budget" in percent of its devices. */
struct claim_alert {
    const char *claim;
    const char *product;
    const char *kind;
    int64_t threshold;
    int64_t days_left;
    int64_t percent; /* -1: it has no budget */
    int64_t serials; /* on the allowlist, of its batch or product */
    int64_t never_seen;
};

/* Each once in the life of the registry; rows in the arena, none when another replica is at it. */
enum err maintain_claim_alerts(struct db *db, struct arena *arena, struct claim_alert **ret_alerts,
                               size_t *ret_count) MUST_CHECK;

/* Announces devices that stand in a state for too long, each stay once. */
enum { STUCK_MAX_STATES = 8 };
struct stuck_count {
    char state[24];
    int64_t devices;
};
enum err maintain_stuck(struct db *db, struct stuck_count ret[STUCK_MAX_STATES],
                        size_t *ret_count) MUST_CHECK;

extern const struct stmt_set maintain_statements;
