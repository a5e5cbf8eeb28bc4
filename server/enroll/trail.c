#include "enroll/trail.h"

#include <pthread.h>
#include <stdlib.h>

enum { BUCKETS = 4096, GLOBAL_FACTOR = 10 };

/* Sources that share a slot share its bucket: never more is let through than meant. */
struct bucket {
    double tokens;
    int64_t filled_us;
};

struct trail_limit {
    pthread_mutex_t lock;
    unsigned per_s;
    unsigned burst;
    struct bucket global;
    struct bucket slots[BUCKETS];
};

enum err trail_limit_new(unsigned per_s, unsigned burst, struct trail_limit **ret_limit)
{
    struct trail_limit *l = calloc(1, sizeof(*l));
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

void trail_limit_free(struct trail_limit *l)
{
    if (!l)
        return;
    pthread_mutex_destroy(&l->lock);
    free(l);
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

bool trail_limit_take(struct trail_limit *l, const char *source, int64_t now_us)
{
    pthread_mutex_lock(&l->lock);
    struct bucket *slot = &l->slots[slot_of(source)];
    bucket_fill(slot, l->per_s, l->burst, now_us);
    bucket_fill(&l->global, (double)l->per_s * GLOBAL_FACTOR, (double)l->burst * GLOBAL_FACTOR,
                now_us);
    bool admitted = slot->tokens >= 1 && l->global.tokens >= 1;
    if (admitted) {
        slot->tokens -= 1;
        l->global.tokens -= 1;
    }
    pthread_mutex_unlock(&l->lock);
    return admitted;
}
