/*
 * TLS connections that are opened, say nothing, and stay. Owner: whoever opened them. Threads: the
 * loop's own only.
 */
#pragma once

#include "call.h"

struct hold;

/* Opens count connections, and returns when all are there: it runs the target's loop meanwhile.
 * ERR_UNAVAILABLE when one did not come about. */
enum err hold_open(const struct dial_target *target, size_t count,
                   struct hold **ret_hold) MUST_CHECK;

/* How many the server has closed since. */
size_t hold_lost(const struct hold *h);

/* NULL does nothing. */
void hold_close(struct hold *h);
