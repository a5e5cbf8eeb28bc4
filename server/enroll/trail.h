/*
 * The trail of refused attempts: what the operator reads, and what counts towards quarantine.
 * Attempts that prove nothing are limited per source, so that a stranger cannot fill the
 * registry. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct trail_limit;

/* At most `burst` records at once and `per_s` a second from one source, and ten times that in all.
 */
enum err trail_limit_new(unsigned per_s, unsigned burst, struct trail_limit **ret_limit) MUST_CHECK;
void trail_limit_free(struct trail_limit *l);

/* Whether one more record from this source may be written now; now_us is monotonic. */
bool trail_limit_take(struct trail_limit *l, const char *source, int64_t now_us);
