/*
 * The committer: concurrent enrolments share a call of muster.enrol_batch and a commit. The first
 * waiting thread leads, takes what is queued, records it and hands every other its outcome. Made
 * by main, outlives every request. Threads: any.
 */
#pragma once

#include <stdatomic.h>

#include "base/histogram.h"
#include "store/enrol.h"

struct committer;

/* coming: how many may be on their way here, kept by who accepts connections; outlives the
 * committer. */
enum err committer_new(struct db *db, const atomic_uint *coming,
                       struct committer **ret_committer) MUST_CHECK;
void committer_free(struct committer *c);

/* How many enrolments shared a commit; borrowed for the life of the committer. */
const struct histogram *committer_batches(const struct committer *c);

/* Records one enrolment and waits for its commit. The outcome lives in the arena.
 * ERR_UNAVAILABLE: not recorded as far as can be known, the same request may come again. */
enum err committer_record(struct committer *c, const struct enrol_record *record,
                          struct arena *arena, struct enrol_outcome *ret_outcome) MUST_CHECK;

extern const struct stmt_set commit_statements;
