/*
 * One thread's event loop: sockets by epoll, timers by a heap. Whoever made a loop frees it;
 * watchers and timers are taken off by their owners before. Threads: the loop's own only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct loop;

/* What is called when a socket is ready; embedded in its owner. */
struct watch {
    int fd;
    uint32_t events; /* EPOLLIN, EPOLLOUT */
    void (*ready)(struct watch *w, uint32_t events);
};

/* What is called when its time has come, once; embedded in its owner. */
struct timer {
    int64_t at_us;
    size_t slot; /* in the heap, from 1; 0: not set */
    void (*due)(struct timer *t);
};

enum err loop_new(struct loop **ret_loop) MUST_CHECK;
void loop_free(struct loop *l);

/* Monotonic microseconds, read once a round. */
int64_t loop_now_us(const struct loop *l);

enum err loop_watch(struct loop *l, struct watch *w) MUST_CHECK;
void loop_rewatch(struct loop *l, struct watch *w, uint32_t events);
void loop_unwatch(struct loop *l, struct watch *w);

/* Sets or moves a timer. */
enum err loop_timer(struct loop *l, struct timer *t, int64_t at_us) MUST_CHECK;
void loop_untimer(struct loop *l, struct timer *t);

/* Runs until loop_stop. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l);
