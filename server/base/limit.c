#include "base/limit.h"

#include <pthread.h>
#include <stdlib.h>

enum { BUCKETS = 4096, GLOBAL_FACTOR = 10 };

/* Sources that share a slot share its bucket: never more is let through than meant. */
struct bucket {
    double tokens;
    int64_t filled_us;
};

struct source_limit {
    pthread_mutex_t lock;
    double per_s;
    unsigned burst;
    struct bucket global;
    struct bucket slots[BUCKETS];
};

enum err source_limit_new(double per_s, unsigned burst, struct source_limit **ret_limit)
{
    struct source_limit *l = calloc(1, sizeof(*l));
    if (!l)
        return ERR_NO_MEMORY;
    l->per_s = per_s;
    l->burst = burst;
    l->global.tokens = (double)burst * GLOBAL_FACTOR;
    for (int i = 0; i < BUCKETS; i++)
        l->slots[i].tokens = burst;
    pthread_mutex_init(&l->lock, NULL);
    *ret_limit = l;
    return ERR_OK;
}

void source_limit_free(struct source_limit *l)
{
    if (!l)
        return;
    pthread_mutex_destroy(&l->lock);
    free(l);
}

void source_limit_change(struct source_limit *l, double per_s, unsigned burst)
{
    pthread_mutex_lock(&l->lock);
    l->per_s = per_s;
    l->burst = burst;
    pthread_mutex_unlock(&l->lock);
}

/* FNV-1a */
static uint32_t slot_of(const char *source)
{
    uint32_t h = 2166136261u;
    for (; *source; source++)
        h = (h ^ (unsigned char)*source) * 16777619u;
    return h % BUCKETS;
}

static void bucket_fill(struct bucket *b, double per_s, double burst, int64_t now_us)
{
    if (b->filled_us > 0 && now_us > b->filled_us)
        b->tokens += (double)(now_us - b->filled_us) / 1e6 * per_s;
    if (b->tokens > burst)
        b->tokens = burst;
    b->filled_us = now_us;
}

/* With the lock held: whether one is left; the source's bucket is filled. */
static bool left(struct source_limit *l, struct bucket *slot, int64_t now_us)
{
    bucket_fill(slot, l->per_s, l->burst, now_us);
    bucket_fill(&l->global, l->per_s * GLOBAL_FACTOR, (double)l->burst * GLOBAL_FACTOR, now_us);
    return slot->tokens >= 1 && l->global.tokens >= 1;
}

bool source_limit_left(struct source_limit *l, const char *source, int64_t now_us)
{
    pthread_mutex_lock(&l->lock);
    bool one = left(l, &l->slots[slot_of(source)], now_us);
    pthread_mutex_unlock(&l->lock);
    return one;
}

bool source_limit_take(struct source_limit *l, const char *source, int64_t now_us)
{
    pthread_mutex_lock(&l->lock);
    struct bucket *slot = &l->slots[slot_of(source)];
    bool admitted = left(l, slot, now_us);
    if (admitted) {
        slot->tokens -= 1;
        l->global.tokens -= 1;
    }
    pthread_mutex_unlock(&l->lock);
    return admitted;
}
