#include "tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct samples {
    uint32_t *us;
    size_t count;
    size_t cap;
};

struct tally {
    struct tally_outcome outcomes[TALLY_MAX_OUTCOMES];
    size_t outcome_count;
    struct samples kinds[TALLY_KIND_COUNT];
    struct samples present; /* of the second under way */
    struct tally_second now;
    struct tally_second *seconds;
    size_t second_count;
};

const char *tally_kind_name(enum tally_kind k)
{
    static const char *const names[] = {"handshake", "enrol", "verify", "renew"};
    return names[k];
}

enum err tally_new(struct tally **ret_tally)
{
    struct tally *t = calloc(1, sizeof(*t));
    if (!t)
        return ERR_NO_MEMORY;
    t->seconds = calloc(TALLY_MAX_SECONDS, sizeof(*t->seconds));
    if (!t->seconds) {
        free(t);
        return ERR_NO_MEMORY;
    }
    *ret_tally = t;
    return ERR_OK;
}

void tally_free(struct tally *t)
{
    if (!t)
        return;
    for (int i = 0; i < TALLY_KIND_COUNT; i++)
        free(t->kinds[i].us);
    free(t->present.us);
    free(t->seconds);
    free(t);
}

/* Out of memory loses a sample, never the run. */
static void sample_add(struct samples *s, int64_t us)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 1024;
        uint32_t *more = realloc(s->us, cap * sizeof(*more));
        if (!more)
            return;
        s->us = more;
        s->cap = cap;
    }
    s->us[s->count++] = us < 0 ? 0 : us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static int sample_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The nearest rank. */
static uint32_t sample_percentile(struct samples *s, double percent)
{
    if (s->count == 0)
        return 0;
    qsort(s->us, s->count, sizeof(*s->us), sample_compare);
    size_t rank = (size_t)(percent / 100 * (double)s->count);
    return s->us[rank < s->count ? rank : s->count - 1];
}

void tally_outcome(struct tally *t, const char *name)
{
    size_t i = 0;
    while (i < t->outcome_count && strcmp(t->outcomes[i].name, name) != 0)
        i++;
    if (i == TALLY_MAX_OUTCOMES)
        i--; /* the last stands for what has no room */
    if (i == t->outcome_count)
        snprintf(t->outcomes[t->outcome_count++].name, TALLY_NAME_BYTES, "%s", name);
    t->outcomes[i].count++;
}

void tally_latency(struct tally *t, enum tally_kind kind, int64_t us)
{
    sample_add(&t->kinds[kind], us);
}

void tally_request(struct tally *t, bool done, int64_t us)
{
    t->now.done += done;
    t->now.refused += !done;
    if (done)
        sample_add(&t->present, us);
}

void tally_tick(struct tally *t, float server_cpu, float database_cpu, uint32_t server_kib)
{
    t->now.p50_us = sample_percentile(&t->present, 50);
    t->now.p99_us = sample_percentile(&t->present, 99);
    t->now.server_cpu = server_cpu;
    t->now.database_cpu = database_cpu;
    t->now.server_kib = server_kib;
    if (t->second_count < TALLY_MAX_SECONDS)
        t->seconds[t->second_count++] = t->now;
    t->now = (struct tally_second){0};
    t->present.count = 0;
}

size_t tally_outcomes(const struct tally *t, const struct tally_outcome **ret_outcomes)
{
    *ret_outcomes = t->outcomes;
    return t->outcome_count;
}

uint64_t tally_count_of(const struct tally *t, const char *name)
{
    for (size_t i = 0; i < t->outcome_count; i++) {
        if (strcmp(t->outcomes[i].name, name) == 0)
            return t->outcomes[i].count;
    }
    return 0;
}

size_t tally_seconds(const struct tally *t, const struct tally_second **ret_seconds)
{
    *ret_seconds = t->seconds;
    return t->second_count;
}

size_t tally_samples(const struct tally *t, enum tally_kind kind)
{
    return t->kinds[kind].count;
}

int64_t tally_percentile(struct tally *t, enum tally_kind kind, double percent)
{
    return sample_percentile(&t->kinds[kind], percent);
}
