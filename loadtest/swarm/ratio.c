#include "ratio.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "bench.h"
#include "hold.h"

enum { KEYS_PER_ROUND = 4, CLAIM_KEYS_PER_ROUND = 2, DPS_KEYS_PER_ROUND = 2, EXIT_UNABLE = 2 };

/* Of one load, the rounds of every kind. */
struct rounds {
    struct bench_result kinds[BENCH_KIND_COUNT][RATIO_MAX_ROUNDS];
};

static int double_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of one number of the rounds; at: its offset in a result. */
static double median(const struct bench_result *results, size_t n, size_t at)
{
    double values[RATIO_MAX_ROUNDS];
    for (size_t i = 0; i < n; i++)
        values[i] = *(const double *)((const char *)&results[i] + at);
    qsort(values, n, sizeof(*values), double_compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static struct bench_result medians(const struct bench_result *results, size_t n)
{
    return (struct bench_result){
        .server_us = median(results, n, offsetof(struct bench_result, server_us)),
        .database_us = median(results, n, offsetof(struct bench_result, database_us)),
        .broker_us = median(results, n, offsetof(struct bench_result, broker_us)),
        .per_s = median(results, n, offsetof(struct bench_result, per_s)),
        .p50_us = median(results, n, offsetof(struct bench_result, p50_us)),
        .p99_us = median(results, n, offsetof(struct bench_result, p99_us)),
    };
}

static double cpu_us(const struct bench_result *r)
{
    return r->server_us + r->database_us + r->broker_us;
}

/* Every kind by turns; the first round warms everything up and is forgotten. */
static enum err rounds_measure(struct bench *b, const struct ratio_settings *s, size_t clients,
                               struct bench_result ret_medians[BENCH_KIND_COUNT])
{
    static struct rounds all;
    enum err e = ERR_OK;
    for (size_t round = 0; round <= s->rounds && !e; round++) {
        for (size_t k = 0; k < BENCH_KIND_COUNT && !e; k++) {
            if (!b->has[k])
                continue;
            const struct bench_order order = {
                .kind = (enum bench_kind)k, .requests = s->requests, .clients = clients};
            e = bench_measure(b, &order, &all.kinds[k][round > 0 ? round - 1 : 0]);
        }
    }
    for (size_t k = 0; k < BENCH_KIND_COUNT && !e; k++) {
        if (b->has[k])
            ret_medians[k] = medians(all.kinds[k], s->rounds);
    }
    return e;
}

/* Of an enrolment to the GET that has as much of a handshake. */
static double ratio_of(const struct bench_result r[BENCH_KIND_COUNT], enum bench_kind kind)
{
    bool by_secret = kind == BENCH_TOKEN || kind == BENCH_DPS_SAS || kind == BENCH_DPS_SAS_CSR;
    return cpu_us(&r[kind]) / cpu_us(&r[by_secret ? BENCH_GET : BENCH_GET_CERT]);
}

/* In the order of the last lines. */
static const struct told {
    enum bench_kind kind;
    const char *name;
} told[] = {{BENCH_CLAIM_HTTPS, "claim-https"},
            {BENCH_CLAIM_MQTT, "claim-mqtt"},
            {BENCH_DPS_SAS, "dps-sas"},
            {BENCH_DPS_SAS_CSR, "dps-sas-csr"},
            {BENCH_DPS_X509, "dps-x509"},
            {BENCH_TOKEN, "token"},
            {BENCH_CERT, "cert"}};

static void load_tell(const struct bench *b, size_t clients,
                      const struct bench_result r[BENCH_KIND_COUNT])
{
    for (size_t k = 0; k < BENCH_KIND_COUNT; k++) {
        if (b->has[k])
            printf("%7zu  %-24s %8.0f %8.0f %11.0f %10.0f %8.0f %8.1f %8.1f\n", clients,
                   bench_name((enum bench_kind)k), cpu_us(&r[k]), r[k].server_us, r[k].database_us,
                   r[k].broker_us, r[k].per_s, r[k].p50_us / 1e3, r[k].p99_us / 1e3);
    }
    printf("%7zu  ratio:", clients);
    const char *comma = "";
    for (size_t i = 0; i < ARRAY_LEN(told); i++) {
        if (!b->has[told[i].kind])
            continue;
        printf("%s %s %.2f", comma, told[i].name, ratio_of(r, told[i].kind));
        comma = ",";
    }
    printf("\n");
    fflush(stdout);
}

static void ratios_tell(const struct bench *b, const struct bench_result r[BENCH_KIND_COUNT])
{
    for (size_t i = 0; i < ARRAY_LEN(told); i++) {
        if (b->has[told[i].kind])
            printf("ratio %s %.2f\n", told[i].name, ratio_of(r, told[i].kind));
    }
}

static enum err raw_tell(void)
{
    double sign_us, verify_us;
    enum err e = bench_raw(&sign_us, &verify_us);
    if (!e)
        printf("P-256 alone, as openssl speed has it: sign %.0f us, verify %.0f us\n", sign_us,
               verify_us);
    return e;
}

/* Latencies of one kind of enrolment and of its GET at the same pace, below what these enrolments
 * can reach. */
static enum err pace_tell(struct bench *b, const struct ratio_settings *s, enum bench_kind get,
                          enum bench_kind enrolment, double saturated_per_s)
{
    const enum bench_kind kinds[] = {get, enrolment};
    static struct bench_result all[ARRAY_LEN(kinds)][RATIO_MAX_ROUNDS];
    struct bench_result r[ARRAY_LEN(kinds)];
    double per_s = saturated_per_s * (double)s->pace_percent / 100;
    enum err e = ERR_OK;
    for (size_t i = 0; i < s->rounds * ARRAY_LEN(kinds) && !e; i++) {
        size_t k = i % ARRAY_LEN(kinds);
        const struct bench_order order = {
            .kind = kinds[k], .requests = s->requests, .per_s = per_s};
        e = bench_measure(b, &order, &all[k][i / ARRAY_LEN(kinds)]);
    }
    for (size_t k = 0; k < ARRAY_LEN(kinds) && !e; k++) {
        r[k] = medians(all[k], s->rounds);
        printf("%5.0f/s  %-24s p50 %.1f ms, p99 %.1f ms\n", per_s, bench_name(kinds[k]),
               r[k].p50_us / 1e3, r[k].p99_us / 1e3);
    }
    if (!e)
        printf("at %zu %% of saturation the p99 is %.1f times the GET's\n", s->pace_percent,
               r[1].p99_us / r[0].p99_us);
    return e;
}

static enum err idle_open(struct bench *b, const struct ratio_settings *s, struct hold **ret_hold)
{
    struct usage_reading before, after;
    if (s->idle == 0)
        return ERR_OK;
    call_allow(s->idle + RATIO_MAX_CLIENTS);
    usage_read(&b->world.usage, &before);
    enum err e = hold_open(&b->world.target, s->idle, ret_hold);
    if (e) {
        fprintf(stderr, "swarm: not all idle connections came about\n");
        return e;
    }
    usage_read(&b->world.usage, &after);
    printf("%zu idle TLS connections: musterd %u KiB, before %u, %.1f KiB each\n", s->idle,
           after.server_kib, before.server_kib,
           ((double)after.server_kib - before.server_kib) / (double)s->idle);
    return ERR_OK;
}

static enum err idle_check(const struct hold *h)
{
    size_t lost = h ? hold_lost(h) : 0;
    if (lost > 0)
        fprintf(stderr, "swarm: %zu of the idle connections were closed by the server\n", lost);
    return lost > 0 ? ERR_INVALID : ERR_OK;
}

static enum err measure(struct bench *b, const struct ratio_settings *s)
{
    struct hold *idle = NULL;
    struct bench_result r[BENCH_KIND_COUNT] = {{0}};
    enum err e = raw_tell();
    if (!e)
        e = idle_open(b, s, &idle);
    if (!e)
        printf("%zu requests of each kind, medians of %zu rounds; CPU in us a request\n"
               "clients  %-24s %8s %8s %11s %10s %8s %8s %8s\n",
               s->requests, s->rounds, "", "CPU", "musterd", "PostgreSQL", "Mosquitto", "per s",
               "p50 ms", "p99 ms");
    for (size_t i = 0; i < s->loads && !e; i++) {
        e = rounds_measure(b, s, s->clients[i], r);
        if (!e)
            load_tell(b, s->clients[i], r);
    }
    if (!e && s->pace_percent > 0)
        e = pace_tell(b, s, BENCH_GET, BENCH_TOKEN, r[BENCH_TOKEN].per_s);
    if (!e && s->pace_percent > 0)
        e = pace_tell(b, s, BENCH_GET_CERT, BENCH_CERT, r[BENCH_CERT].per_s);
    if (!e)
        e = idle_check(idle);
    hold_close(idle);
    if (!e)
        ratios_tell(b, r);
    return e;
}

int ratio_run(const struct ratio_settings *s)
{
    struct bench b = {.next_key = 0};
    size_t passes = s->loads * (s->rounds + 1) + (s->pace_percent > 0 ? s->rounds : 0);
    size_t keys =
        KEYS_PER_ROUND + (s->claims ? CLAIM_KEYS_PER_ROUND : 0) + (s->dps ? DPS_KEYS_PER_ROUND : 0);
    enum err e =
        bench_open(&b, &s->processes, s->keys_path, keys * s->requests * passes, s->folder);
    if (!e && s->claims)
        e = bench_claims(&b);
    if (!e && s->dps)
        e = bench_dps(&b);
    if (!e)
        e = measure(&b, s);
    bench_close(&b);
    return e ? EXIT_UNABLE : 0;
}
