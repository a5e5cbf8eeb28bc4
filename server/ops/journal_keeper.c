#include "ops/journal_keeper.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/clock.h"
#include "enroll/journal.h"

enum { TICK_US = 1000000 };

struct journal_keeper {
    struct journal *journal;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    bool stop;
};

static void *keep(void *arg)
{
    struct journal_keeper *k = arg;
    pthread_mutex_lock(&k->lock);
    while (!k->stop) {
        struct timespec until = clock_deadline(TICK_US);
        pthread_cond_timedwait(&k->wake, &k->lock, &until);
        pthread_mutex_unlock(&k->lock);
        journal_tick(k->journal);
        pthread_mutex_lock(&k->lock);
    }
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

enum err journal_keeper_new(struct journal *journal, struct journal_keeper **ret_keeper)
{
    struct journal_keeper *k = journal ? calloc(1, sizeof(*k)) : NULL;
    *ret_keeper = NULL;
    if (!journal)
        return ERR_OK;
    if (!k)
        return ERR_NO_MEMORY;
    k->journal = journal;
    pthread_mutex_init(&k->lock, NULL);
    clock_cond_init(&k->wake);
    if (pthread_create(&k->thread, NULL, keep, k) != 0) {
        free(k);
        return ERR_SYSTEM;
    }
    *ret_keeper = k;
    return ERR_OK;
}

void journal_keeper_free(struct journal_keeper *k)
{
    if (!k)
        return;
    pthread_mutex_lock(&k->lock);
    k->stop = true;
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
    pthread_join(k->thread, NULL);
    pthread_cond_destroy(&k->wake);
    pthread_mutex_destroy(&k->lock);
    free(k);
}
