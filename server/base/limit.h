/*
 * Token buckets per source address, in fixed memory: what strangers may make us write or try.
 * Whoever made a limit frees it. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct source_limit;

/* At most `burst` at once and `per_s` a second from one source, and ten times that in all. */
enum err source_limit_new(double per_s, unsigned burst, struct source_limit **ret_limit) MUST_CHECK;
void source_limit_free(struct source_limit *l);

/* Other rates from now on; what a bucket holds stays, up to the new burst. */
void source_limit_change(struct source_limit *l, double per_s, unsigned burst);

/* Whether one is left, without taking it. */
bool source_limit_left(struct source_limit *l, const char *source, int64_t now_us);

/* Takes one where one is left; now_us is monotonic. */
bool source_limit_take(struct source_limit *l, const char *source, int64_t now_us);
