#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"

enum { EVENTS_A_ROUND = 256, FIRST_TIMERS = 256, LONGEST_WAIT_MS = 1000 };

struct loop {
    int epoll;
    bool stopped;
    int64_t now_us;
    struct timer **heap; /* from 1; the earliest first */
    size_t count;
    size_t cap;
};

enum err loop_new(struct loop **ret_loop)
{
    struct loop *l = calloc(1, sizeof(*l));
    if (!l)
        return ERR_NO_MEMORY;
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->cap = FIRST_TIMERS;
    l->heap = calloc(l->cap + 1, sizeof(struct timer *));
    l->now_us = clock_mono_us();
    if (l->epoll < 0 || !l->heap) {
        loop_free(l);
        return ERR_SYSTEM;
    }
    *ret_loop = l;
    return ERR_OK;
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    if (l->epoll >= 0)
        close(l->epoll);
    free(l->heap);
    free(l);
}

int64_t loop_now_us(const struct loop *l)
{
    return l->now_us;
}

enum err loop_watch(struct loop *l, struct watch *w)
{
    struct epoll_event e = {.events = w->events, .data.ptr = w};
    return epoll_ctl(l->epoll, EPOLL_CTL_ADD, w->fd, &e) == 0 ? ERR_OK : ERR_SYSTEM;
}

void loop_rewatch(struct loop *l, struct watch *w, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = w};
    if (w->events != events && epoll_ctl(l->epoll, EPOLL_CTL_MOD, w->fd, &e) == 0)
        w->events = events;
}

void loop_unwatch(struct loop *l, struct watch *w)
{
    if (w->fd >= 0)
        (void)epoll_ctl(l->epoll, EPOLL_CTL_DEL, w->fd, NULL);
}

static void heap_put(struct loop *l, size_t at, struct timer *t)
{
    l->heap[at] = t;
    t->slot = at;
}

static void heap_up(struct loop *l, size_t at)
{
    struct timer *t = l->heap[at];
    for (; at > 1 && l->heap[at / 2]->at_us > t->at_us; at /= 2)
        heap_put(l, at, l->heap[at / 2]);
    heap_put(l, at, t);
}

static void heap_down(struct loop *l, size_t at)
{
    struct timer *t = l->heap[at];
    while (2 * at <= l->count) {
        size_t child = 2 * at;
        if (child < l->count && l->heap[child + 1]->at_us < l->heap[child]->at_us)
            child++;
        if (l->heap[child]->at_us >= t->at_us)
            break;
        heap_put(l, at, l->heap[child]);
        at = child;
    }
    heap_put(l, at, t);
}

enum err loop_timer(struct loop *l, struct timer *t, int64_t at_us)
{
    loop_untimer(l, t);
    if (l->count == l->cap) {
        struct timer **more = realloc(l->heap, (2 * l->cap + 1) * sizeof(struct timer *));
        if (!more)
            return ERR_NO_MEMORY;
        l->heap = more;
        l->cap *= 2;
    }
    t->at_us = at_us;
    heap_put(l, ++l->count, t);
    heap_up(l, l->count);
    return ERR_OK;
}

void loop_untimer(struct loop *l, struct timer *t)
{
    size_t at = t->slot;
    if (at == 0)
        return;
    t->slot = 0;
    struct timer *last = l->heap[l->count--];
    if (last == t)
        return;
    heap_put(l, at, last);
    heap_up(l, at);
    heap_down(l, last->slot);
}

static void timers_run(struct loop *l)
{
    while (!l->stopped && l->count > 0 && l->heap[1]->at_us <= l->now_us) {
        struct timer *t = l->heap[1];
        loop_untimer(l, t);
        t->due(t);
    }
}

static int wait_ms(const struct loop *l)
{
    if (l->count == 0)
        return LONGEST_WAIT_MS;
    int64_t left_us = l->heap[1]->at_us - clock_mono_us();
    if (left_us <= 0)
        return 0;
    return left_us / 1000 + 1 < LONGEST_WAIT_MS ? (int)(left_us / 1000) + 1 : LONGEST_WAIT_MS;
}

void loop_run(struct loop *l)
{
    struct epoll_event events[EVENTS_A_ROUND];
    l->stopped = false;
    while (!l->stopped) {
        int n = epoll_wait(l->epoll, events, EVENTS_A_ROUND, wait_ms(l));
        if (n < 0 && errno != EINTR)
            return;
        l->now_us = clock_mono_us();
        for (int i = 0; i < n && !l->stopped; i++) {
            struct watch *w = events[i].data.ptr;
            w->ready(w, events[i].events);
        }
        timers_run(l);
    }
}

void loop_stop(struct loop *l)
{
    l->stopped = true;
}
