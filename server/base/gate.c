#include "base/gate.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"

enum err gate_init(struct gate *g, unsigned max_inside, unsigned max_waiting)
{
    *g = (struct gate){.max_inside = max_inside, .max_waiting = max_waiting};
    if (clock_cond_init(&g->freed) != 0)
        return ERR_SYSTEM;
    if (pthread_mutex_init(&g->lock, NULL) != 0) {
        pthread_cond_destroy(&g->freed);
        return ERR_SYSTEM;
    }
    return ERR_OK;
}

void gate_done(struct gate *g)
{
    pthread_cond_destroy(&g->freed);
    pthread_mutex_destroy(&g->lock);
}

/* With the lock held: waits for a place until the deadline. */
static enum err gate_wait(struct gate *g, unsigned timeout_ms)
{
    struct timespec at = clock_deadline((int64_t)timeout_ms * 1000);
    int rc = 0;
    g->waiting++;
    while (g->inside >= g->max_inside && rc == 0)
        rc = pthread_cond_timedwait(&g->freed, &g->lock, &at);
    g->waiting--;
    return g->inside < g->max_inside ? ERR_OK : ERR_UNAVAILABLE;
}

enum err gate_enter(struct gate *g, unsigned timeout_ms)
{
    enum err e = ERR_OK;
    pthread_mutex_lock(&g->lock);
    if (g->inside >= g->max_inside)
        e = g->waiting >= g->max_waiting ? ERR_UNAVAILABLE : gate_wait(g, timeout_ms);
    if (!e)
        g->inside++;
    pthread_mutex_unlock(&g->lock);
    return e;
}

void gate_leave(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->inside--;
    pthread_cond_signal(&g->freed);
    pthread_mutex_unlock(&g->lock);
}

void gate_return(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    while (g->inside >= g->max_inside)
        pthread_cond_wait(&g->freed, &g->lock);
    g->inside++;
    pthread_mutex_unlock(&g->lock);
}

void gate_limit(struct gate *g, unsigned max_inside, unsigned max_waiting)
{
    pthread_mutex_lock(&g->lock);
    g->max_inside = max_inside;
    g->max_waiting = max_waiting;
    pthread_cond_broadcast(&g->freed);
    pthread_mutex_unlock(&g->lock);
}

void gate_look(struct gate *g, struct gate_state *ret_state)
{
    pthread_mutex_lock(&g->lock);
    *ret_state = (struct gate_state){g->inside, g->waiting, g->max_inside, g->max_waiting};
    pthread_mutex_unlock(&g->lock);
}
