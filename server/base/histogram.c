#include "base/histogram.h"

const struct histogram_scale histogram_time = {
    .bounds = {250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 1000000, 5000000},
    .count = 12,
    .unit = 1e-6,
};

const struct histogram_scale histogram_size = {
    .bounds = {1, 2, 4, 8, 16, 32, 64},
    .count = 7,
    .unit = 1,
};

void histogram_observe(struct histogram *h, int64_t value)
{
    unsigned i = 0;
    while (i < h->scale->count && value > h->scale->bounds[i])
        i++;
    atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum, value > 0 ? (uint64_t)value : 0, memory_order_relaxed);
}

uint64_t histogram_bucket(const struct histogram *h, unsigned i)
{
    return atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
}

uint64_t histogram_sum(const struct histogram *h)
{
    return atomic_load_explicit(&h->sum, memory_order_relaxed);
}
