/*
 * The thread that looks after the journal once a second: what other replicas left due, files that
 * are old, a volume that has room again. Threads: main makes and frees it.
 */
#pragma once

#include "base/err.h"

struct journal;
struct journal_keeper;

/* journal NULL: there is nothing to do, and *ret_keeper is NULL. */
enum err journal_keeper_new(struct journal *journal, struct journal_keeper **ret_keeper) MUST_CHECK;
void journal_keeper_free(struct journal_keeper *k);
