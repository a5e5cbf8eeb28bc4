/* The queue of work: order, bound, and that no key has it for itself. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/work_queue.h"
#include "suite.h"

enum { MANY = 4000, KEYS = 7, WORKERS = 8, PER_KEY = 3 };

static struct work_queue *queue_of(unsigned max_queued, unsigned per_key)
{
    struct work_queue *q = NULL;
    ck_assert_int_eq(work_queue_new(max_queued, per_key, &q), ERR_OK);
    return q;
}

static void push(struct work_queue *q, struct work_item *item, uint64_t key)
{
    *item = (struct work_item){.key = key};
    ck_assert_int_eq(work_queue_push(q, item), ERR_OK);
}

static void end(struct work_queue *q)
{
    work_queue_close(q);
    ck_assert_ptr_null(work_queue_pop(q));
    ck_assert_uint_eq(work_queue_active(q), 0);
    work_queue_free(q);
}

START_TEST(the_oldest_comes_first)
{
    struct work_queue *q = queue_of(10, 5);
    struct work_item items[5];
    for (size_t i = 0; i < ARRAY_LEN(items); i++)
        push(q, &items[i], i % 2);
    ck_assert_uint_eq(work_queue_length(q), 5);
    for (size_t i = 0; i < ARRAY_LEN(items); i++)
        ck_assert_ptr_eq(work_queue_pop(q), &items[i]);
    ck_assert_uint_eq(work_queue_length(q), 0);
    ck_assert_uint_eq(work_queue_active(q), 5);
    for (size_t i = 0; i < ARRAY_LEN(items); i++)
        work_queue_done(q, &items[i]);
    end(q);
}
END_TEST

START_TEST(it_is_bounded_by_what_waits)
{
    struct work_queue *q = queue_of(2, 1);
    struct work_item items[4] = {{.key = 1}, {.key = 2}, {.key = 3}, {.key = 4}};
    ck_assert_int_eq(work_queue_push(q, &items[0]), ERR_OK);
    ck_assert_int_eq(work_queue_push(q, &items[1]), ERR_OK);
    ck_assert_int_eq(work_queue_push(q, &items[2]), ERR_UNAVAILABLE);
    ck_assert_ptr_eq(work_queue_pop(q), &items[0]);
    ck_assert_int_eq(work_queue_push(q, &items[2]), ERR_OK);
    ck_assert_int_eq(work_queue_push(q, &items[3]), ERR_UNAVAILABLE);
    ck_assert_ptr_eq(work_queue_pop(q), &items[1]);
    ck_assert_ptr_eq(work_queue_pop(q), &items[2]);
    for (size_t i = 0; i < 3; i++)
        work_queue_done(q, &items[i]);
    end(q);
}
END_TEST

START_TEST(a_key_at_its_bound_is_passed_over)
{
    struct work_queue *q = queue_of(10, 2);
    struct work_item greedy[4], other;
    for (size_t i = 0; i < ARRAY_LEN(greedy); i++)
        push(q, &greedy[i], 1);
    push(q, &other, 2);
    ck_assert_ptr_eq(work_queue_pop(q), &greedy[0]);
    ck_assert_ptr_eq(work_queue_pop(q), &greedy[1]);
    ck_assert_ptr_eq(work_queue_pop(q), &other);
    work_queue_done(q, &greedy[1]);
    ck_assert_ptr_eq(work_queue_pop(q), &greedy[2]);
    work_queue_done(q, &greedy[0]);
    ck_assert_ptr_eq(work_queue_pop(q), &greedy[3]);
    work_queue_done(q, &greedy[2]);
    work_queue_done(q, &greedy[3]);
    work_queue_done(q, &other);
    end(q);
}
END_TEST

START_TEST(a_bound_of_none_is_one)
{
    struct work_queue *q = queue_of(10, 0);
    struct work_item item;
    push(q, &item, 1);
    ck_assert_ptr_eq(work_queue_pop(q), &item);
    work_queue_done(q, &item);
    end(q);
}
END_TEST

START_TEST(a_closed_queue_is_emptied)
{
    struct work_queue *q = queue_of(10, 1);
    struct work_item items[3] = {{.key = 1}, {.key = 1}, {.key = 1}};
    ck_assert_int_eq(work_queue_push(q, &items[0]), ERR_OK);
    ck_assert_int_eq(work_queue_push(q, &items[1]), ERR_OK);
    work_queue_close(q);
    ck_assert_int_eq(work_queue_push(q, &items[2]), ERR_UNAVAILABLE);
    for (size_t i = 0; i < 2; i++) {
        ck_assert_ptr_eq(work_queue_pop(q), &items[i]);
        work_queue_done(q, &items[i]);
    }
    end(q);
}
END_TEST

/* Threads that take, hold for a moment and give back. */
struct crowd {
    struct work_queue *queue;
    atomic_uint running[KEYS];
    atomic_uint most[KEYS];
    atomic_uint done;
};

static void *crowd_run(void *arg)
{
    struct crowd *c = arg;
    struct work_item *item;
    while ((item = work_queue_pop(c->queue))) {
        unsigned now = atomic_fetch_add(&c->running[item->key], 1) + 1;
        unsigned most = atomic_load(&c->most[item->key]);
        while (now > most && !atomic_compare_exchange_weak(&c->most[item->key], &most, now))
            continue;
        if (atomic_fetch_add(&c->done, 1) % 16 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        atomic_fetch_sub(&c->running[item->key], 1);
        work_queue_done(c->queue, item);
    }
    return NULL;
}

START_TEST(many_threads_keep_to_the_bound_of_a_key)
{
    static struct work_item items[MANY];
    struct crowd c = {.queue = queue_of(MANY, PER_KEY)};
    pthread_t threads[WORKERS];
    for (size_t i = 0; i < WORKERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, crowd_run, &c), 0);
    for (size_t i = 0; i < MANY; i++)
        push(c.queue, &items[i], i % 10 < 6 ? 0 : 1 + i % (KEYS - 1));
    work_queue_close(c.queue);
    for (size_t i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(atomic_load(&c.done), MANY);
    for (size_t i = 0; i < KEYS; i++)
        ck_assert_uint_le(atomic_load(&c.most[i]), PER_KEY);
    ck_assert_uint_ge(atomic_load(&c.most[0]), 2);
    end(c.queue);
}
END_TEST

SUITE("work_queue", the_oldest_comes_first, it_is_bounded_by_what_waits,
      a_key_at_its_bound_is_passed_over, a_bound_of_none_is_one, a_closed_queue_is_emptied,
      many_threads_keep_to_the_bound_of_a_key)
