#include "ops/ticker.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/clock.h"

enum { TICK_US = 1000000 };

struct ticker {
    void (*tick)(void *owner);
    void *owner;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    bool stop;
};

static void *ticks_run(void *arg)
{
    struct ticker *t = arg;
    pthread_mutex_lock(&t->lock);
    while (!t->stop) {
        struct timespec until = clock_deadline(TICK_US);
        pthread_cond_timedwait(&t->wake, &t->lock, &until);
        pthread_mutex_unlock(&t->lock);
        t->tick(t->owner);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

enum err ticker_new(void (*tick)(void *owner), void *owner, struct ticker **ret_ticker)
{
    struct ticker *t = calloc(1, sizeof(*t));
    if (!t)
        return ERR_NO_MEMORY;
    t->tick = tick;
    t->owner = owner;
    pthread_mutex_init(&t->lock, NULL);
    clock_cond_init(&t->wake);
    if (pthread_create(&t->thread, NULL, ticks_run, t) != 0) {
        pthread_cond_destroy(&t->wake);
        pthread_mutex_destroy(&t->lock);
        free(t);
        return ERR_SYSTEM;
    }
    *ret_ticker = t;
    return ERR_OK;
}

void ticker_free(struct ticker *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
