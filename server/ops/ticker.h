/*
 * A thread that does one thing once a second: looks after the journal (what other replicas left
 * due, files that are old, a volume that has room again), or at the epoch. Threads: main makes and
 * frees it.
 */
#pragma once

#include "base/err.h"

struct ticker;

/* tick runs on the ticker's thread, owner is borrowed. */
enum err ticker_new(void (*tick)(void *owner), void *owner, struct ticker **ret_ticker) MUST_CHECK;

/* Waits for a tick under way; NULL is none. */
void ticker_free(struct ticker *t);
