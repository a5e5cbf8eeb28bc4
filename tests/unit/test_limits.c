/* Rate limits: the arithmetic with times of our choosing, and many threads at one line of slots. */
#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/gate.h"
#include "enroll/limits.h"
#include "suite.h"

enum { S = 1000000, THREADS = 12, PASSES = 40, MAX_LINES = 2 };

START_TEST(a_plan_never_exceeds_its_rate)
{
    static const struct limit_rate rates[] = {{1, 1},   {1, 4},     {3, 0},      {7, 5},
                                              {50, 50}, {50, 1000}, {100000, 1}, {99999, 100000}};
    for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
        for (unsigned share = 0; share <= LIMIT_MAX_SHARE; share += 15) {
            struct limit_plan p = limit_plan(rates[i], share);
            double burst = rates[i].burst ? rates[i].burst : rates[i].per_second;
            double given = 1.0 * S / (double)p.common_gap_us;
            if (share > 0)
                given += 1.0 * S / (double)p.renewal_gap_us;
            else
                ck_assert_int_eq(p.renewal_gap_us, 0);
            ck_assert(given <= rates[i].per_second + 1e-9);
            double most = (double)p.tolerance_us / S * rates[i].per_second + 2;
            ck_assert(most <= (burst >= 4 ? burst : burst + 1.5) + 1e-9);
            ck_assert(p.back_us > 0 && p.back_us < p.tolerance_us);
        }
    }
}
END_TEST

START_TEST(a_plan_in_numbers)
{
    struct limit_plan p = limit_plan((struct limit_rate){50, 102}, 20);
    ck_assert_int_eq(p.common_gap_us, 25000);
    ck_assert_int_eq(p.renewal_gap_us, 100000);
    ck_assert_int_eq(p.tolerance_us, 2 * S);
    ck_assert_int_eq(p.back_us, 1750000);
}
END_TEST

START_TEST(slots_open_late_and_close_early)
{
    struct lease_run run = {
        .now_us = 900 * (int64_t)S, .first_us = 901 * (int64_t)S, .gap_us = S / 10, .granted = 3};
    /* the database's clock was read between 5.0 and 5.4 of ours */
    struct limit_lease l = limit_lease(&run, 2 * S, 5 * S, 5 * S + 400000);
    struct limit_slot s;
    ck_assert(limit_lease_next(&l, 5 * S, &s));
    ck_assert_int_eq(s.opens_us, 6 * S + 400000);
    ck_assert_int_eq(s.closes_us, 8 * S);
    ck_assert(limit_lease_next(&l, 8 * S + 100000, &s));
    ck_assert_int_eq(s.closes_us, 8 * S + 100000);
    ck_assert(!limit_lease_next(&l, 8 * S + 200001, &s));
    ck_assert_uint_eq(l.left, 0);
}
END_TEST

START_TEST(a_lease_that_took_longer_than_its_tolerance_is_none)
{
    struct lease_run run = {.now_us = S, .first_us = S, .gap_us = 1, .granted = 3};
    struct limit_lease l = limit_lease(&run, S, 10 * S, 12 * S);
    struct limit_slot s;
    ck_assert(!limit_lease_next(&l, 10 * S, &s));
}
END_TEST

START_TEST(the_refused_come_back_one_by_one)
{
    int64_t next_us = 0;
    ck_assert_int_eq(limit_retry_s(&next_us, 0, 5 * S, S / 2), 5);
    ck_assert_int_eq(limit_retry_s(&next_us, 0, 5 * S, S / 2), 6);
    ck_assert_int_eq(limit_retry_s(&next_us, 0, 5 * S, S / 2), 6);
    ck_assert_int_eq(limit_retry_s(&next_us, 0, 5 * S, S / 2), 7);
    ck_assert_int_eq(limit_retry_s(&next_us, 100 * (int64_t)S, 5 * S, S / 2), 5);
    for (int i = 0; i < 5000; i++) {
        int s = limit_retry_s(&next_us, 100 * (int64_t)S, 5 * S, S / 2);
        ck_assert(s >= 1 && s <= 600);
    }
}
END_TEST

/* A registry in memory: the common lane of rate_lease. */
struct registry {
    pthread_mutex_t lock;
    int64_t next_us[MAX_LINES]; /* 0: global, 1: template */
    unsigned leases;
    bool away;
};

static enum err registry_lease(void *ctx, const struct lease_request *q, struct lease_run *ret)
{
    struct registry *r = ctx;
    pthread_mutex_lock(&r->lock);
    int64_t now_us = clock_mono_us() + 1000 * (int64_t)S;
    int64_t *next = &r->next_us[q->id == 0 ? 0 : 1];
    *ret = (struct lease_run){.now_us = now_us, .gap_us = q->common_gap_us};
    ret->first_us = *next > now_us - q->back_us ? *next : now_us - q->back_us;
    if (ret->first_us <= now_us + q->ahead_us) {
        int64_t room = (now_us + q->ahead_us - ret->first_us) / q->common_gap_us + 1;
        ret->granted = room < q->count ? (unsigned)room : q->count;
        *next = ret->first_us + ret->granted * q->common_gap_us;
    }
    r->leases++;
    bool away = r->away;
    pthread_mutex_unlock(&r->lock);
    return away ? ERR_UNAVAILABLE : ERR_OK;
}

struct crowd {
    struct limits *limits[2]; /* two replicas */
    struct gate *gate;
    struct limit_rate rate;
    pthread_mutex_t lock;
    int64_t at_us[THREADS * PASSES];
    size_t passed;
    size_t refused;
    int number;
};

static void *member_run(void *arg)
{
    struct crowd *c = arg;
    pthread_mutex_lock(&c->lock);
    struct limits *l = c->limits[c->number++ % 2];
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < PASSES; i++) {
        struct limits_ask ask = {.source = "::1",
                                 .gate = c->gate,
                                 .keys = {{LIMIT_TEMPLATE, 7, c->rate}},
                                 .key_count = 1};
        struct fault f = {0};
        ck_assert_int_eq(gate_enter(c->gate, 20000), ERR_OK);
        enum err e = limits_pass(l, &ask, &f);
        int64_t now_us = clock_mono_us();
        gate_leave(c->gate);
        pthread_mutex_lock(&c->lock);
        if (e)
            c->refused++;
        else
            c->at_us[c->passed++] = now_us;
        pthread_mutex_unlock(&c->lock);
    }
    return NULL;
}

static int earlier(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Over every interval between two passes; the clock here is read a little after the passing. */
static void bound_hold(struct crowd *c, struct limit_rate rate)
{
    const double late = 0.05 * rate.per_second;
    qsort(c->at_us, c->passed, sizeof(*c->at_us), earlier);
    for (size_t i = 0; i < c->passed; i++) {
        for (size_t k = i; k < c->passed; k++) {
            double seconds = (double)(c->at_us[k] - c->at_us[i]) / S;
            ck_assert((double)(k - i + 1) <= rate.per_second * seconds + rate.burst + late);
        }
    }
}

static void crowd_run(struct crowd *c, const struct limits_config *config, struct registry *r)
{
    pthread_t threads[THREADS];
    struct gate gate;
    ck_assert_int_eq(gate_init(&gate, 4, 100), ERR_OK);
    c->gate = &gate;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&r->lock, NULL);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(limits_new(config, registry_lease, r, &c->limits[i]), ERR_OK);
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, member_run, c), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++)
        limits_free(c->limits[i]);
    ck_assert_uint_eq(gate.inside, 0);
    gate_done(&gate);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&r->lock);
}

START_TEST(threads_of_two_replicas_keep_to_the_rate)
{
    static struct registry r;
    static struct crowd c = {.rate = {200, 50}};
    const struct limits_config config = {.wait_ms = 5000, .max_waiting = 100};
    int64_t began_us = clock_mono_us();
    crowd_run(&c, &config, &r);
    double took_s = (double)(clock_mono_us() - began_us) / S;
    ck_assert_uint_eq(c.refused, 0);
    ck_assert_uint_eq(c.passed, THREADS * PASSES);
    ck_assert((double)c.passed / took_s >= 0.8 * c.rate.per_second);
    bound_hold(&c, c.rate);
}
END_TEST

START_TEST(two_limits_hold_together)
{
    static struct registry r;
    static struct crowd c = {.rate = {300, 60}};
    const struct limits_config config = {
        .global = {200, 50}, .wait_ms = 5000, .max_waiting = 100, .renewal_share = 0};
    crowd_run(&c, &config, &r);
    ck_assert_uint_eq(c.passed, THREADS * PASSES);
    bound_hold(&c, config.global);
    bound_hold(&c, c.rate);
}
END_TEST

START_TEST(a_full_queue_refuses_without_asking)
{
    static struct registry r;
    static struct crowd c = {.rate = {20, 20}};
    const struct limits_config config = {.wait_ms = 100, .max_waiting = 2};
    crowd_run(&c, &config, &r);
    ck_assert_uint_gt(c.refused, 100);
    ck_assert_uint_eq(c.refused + c.passed, THREADS * PASSES);
    ck_assert_uint_lt(r.leases, c.refused);
    bound_hold(&c, c.rate);
}
END_TEST

START_TEST(no_limit_asks_nobody)
{
    static struct registry r = {.away = true};
    static struct crowd c;
    const struct limits_config config = {.wait_ms = 100, .max_waiting = 2};
    crowd_run(&c, &config, &r);
    ck_assert_uint_eq(c.passed, THREADS * PASSES);
    ck_assert_uint_eq(r.leases, 0);
}
END_TEST

START_TEST(without_the_registry_nobody_passes)
{
    static struct registry r = {.away = true};
    static struct crowd c = {.rate = {1000, 1000}};
    const struct limits_config config = {.wait_ms = 100, .max_waiting = 100};
    crowd_run(&c, &config, &r);
    ck_assert_uint_eq(c.passed, 0);
    ck_assert_uint_lt(r.leases, 20);
}
END_TEST

START_TEST(other_settings_hold_from_now_on)
{
    struct registry r = {.lock = PTHREAD_MUTEX_INITIALIZER};
    const struct limits_config loose = {.wait_ms = 100, .max_waiting = 10};
    const struct limits_config strict = {
        .source = {1, 2}, .global = {1000, 0}, .wait_ms = 100, .max_waiting = 10};
    struct limits_ask ask = {.source = "192.0.2.1"};
    struct limits *l = NULL;
    struct fault f = {0};
    ck_assert_int_eq(limits_new(&loose, registry_lease, &r, &l), ERR_OK);
    ck_assert_int_eq(limits_pass(l, &ask, &f), ERR_OK);
    ck_assert_int_eq(limits_configure(l, &strict), ERR_OK);
    ck_assert_int_eq(limits_pass(l, &ask, &f), ERR_OK);
    ck_assert_int_eq(limits_pass(l, &ask, &f), ERR_OK);
    ck_assert_uint_ge(r.leases, 1);
    ck_assert_int_eq(limits_pass(l, &ask, &f), ERR_DENIED);
    ck_assert_int_eq(f.code, FAULT_RATE_LIMITED);
    ck_assert_int_ge(f.retry_after_s, 1);
    ask.source = "192.0.2.2";
    ck_assert_int_eq(limits_pass(l, &ask, &f), ERR_OK);
    limits_free(l);
}
END_TEST

SUITE("limits", a_plan_never_exceeds_its_rate, a_plan_in_numbers, slots_open_late_and_close_early,
      a_lease_that_took_longer_than_its_tolerance_is_none, the_refused_come_back_one_by_one,
      threads_of_two_replicas_keep_to_the_rate, two_limits_hold_together,
      a_full_queue_refuses_without_asking, no_limit_asks_nobody, without_the_registry_nobody_passes,
      other_settings_hold_from_now_on)
