/*
 * A histogram with fixed bounds. The cells are atomic and never reset; observing and reading take
 * no lock. Zeroed memory with `scale` set is an empty one. Threads: any.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

enum { HISTOGRAM_MAX_BOUNDS = 12 };

struct histogram_scale {
    int64_t bounds[HISTOGRAM_MAX_BOUNDS]; /* inclusive upper bounds, rising */
    unsigned count;
    double unit; /* what one is worth in the unit shown */
};

/* Microseconds from 250 us to 5 s, shown as seconds; and counts of things from 1 to 64. */
extern const struct histogram_scale histogram_time, histogram_size;

struct histogram {
    const struct histogram_scale *scale;
    atomic_uint_fast64_t buckets[HISTOGRAM_MAX_BOUNDS + 1]; /* the last has no bound */
    atomic_uint_fast64_t sum;
};

/* Counts one value; below 0 is 0. */
void histogram_observe(struct histogram *h, int64_t value);

/* What a bucket holds by itself, without the ones below it. */
uint64_t histogram_bucket(const struct histogram *h, unsigned i);
uint64_t histogram_sum(const struct histogram *h);
