/*
 * What happened, counted: outcomes, latencies, a line of numbers a second. Made by the run, read
 * by the report. Threads: the loop's own only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { TALLY_MAX_OUTCOMES = 64, TALLY_NAME_BYTES = 64, TALLY_MAX_SECONDS = 90000 };

enum tally_kind { TALLY_HANDSHAKE, TALLY_ENROL, TALLY_VERIFY, TALLY_RENEW, TALLY_KIND_COUNT };

struct tally_outcome {
    char name[TALLY_NAME_BYTES]; /* ok, a fault's code, or what became of the connection */
    uint64_t count;
};

/* One second of the run. */
struct tally_second {
    uint32_t done;    /* requests that were answered with what was asked for */
    uint32_t refused; /* and all others */
    uint32_t p50_us;  /* of those that were answered */
    uint32_t p99_us;
    float server_cpu; /* cores of musterd, and of PostgreSQL */
    float database_cpu;
    uint32_t server_kib; /* resident */
};

struct tally;

const char *tally_kind_name(enum tally_kind k);

enum err tally_new(struct tally **ret_tally) MUST_CHECK;
void tally_free(struct tally *t);

void tally_outcome(struct tally *t, const char *name);
void tally_latency(struct tally *t, enum tally_kind kind, int64_t us);
void tally_request(struct tally *t, bool done, int64_t us);

/* Ends a second: fills its percentiles and begins the next. */
void tally_tick(struct tally *t, float server_cpu, float database_cpu, uint32_t server_kib);

size_t tally_outcomes(const struct tally *t, const struct tally_outcome **ret_outcomes);
uint64_t tally_count_of(const struct tally *t, const char *name);
size_t tally_seconds(const struct tally *t, const struct tally_second **ret_seconds);
size_t tally_samples(const struct tally *t, enum tally_kind kind);

/* A percentile of all samples of a kind, microseconds; sorts them. */
int64_t tally_percentile(struct tally *t, enum tally_kind kind, double percent);
