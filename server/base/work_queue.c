#include "base/work_queue.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

/* The items of a key, in the order they came. Lines without work are freed, so there are few. */
struct work_line {
    uint64_t key;
    unsigned running;
    struct work_item *first;
    struct work_item *last;
    struct work_line *next;
};

struct work_queue {
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct work_line *lines;
    unsigned max_queued;
    unsigned max_running;
    unsigned queued;
    unsigned running;
    uint64_t came;
    bool closed;
};

enum err work_queue_new(unsigned max_queued, unsigned max_running_per_key,
                        struct work_queue **ret_queue)
{
    struct work_queue *q = calloc(1, sizeof(*q));
    if (!q)
        return ERR_NO_MEMORY;
    q->max_queued = max_queued;
    q->max_running = max_running_per_key > 0 ? max_running_per_key : 1;
    if (pthread_mutex_init(&q->lock, NULL) != 0) {
        free(q);
        return ERR_SYSTEM;
    }
    if (pthread_cond_init(&q->changed, NULL) != 0) {
        pthread_mutex_destroy(&q->lock);
        free(q);
        return ERR_SYSTEM;
    }
    *ret_queue = q;
    return ERR_OK;
}

void work_queue_free(struct work_queue *q)
{
    if (!q)
        return;
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

/* With the lock held: the line of a key, made where there is none; NULL when memory ran out. */
static struct work_line *line_of(struct work_queue *q, uint64_t key)
{
    struct work_line *l = q->lines;
    while (l && l->key != key)
        l = l->next;
    if (l)
        return l;
    l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->key = key;
    l->next = q->lines;
    q->lines = l;
    return l;
}

/* With the lock held. */
static void line_append(struct work_line *l, struct work_item *item)
{
    item->line = l;
    item->next = NULL;
    if (l->last)
        l->last->next = item;
    else
        l->first = item;
    l->last = item;
}

enum err work_queue_push(struct work_queue *q, struct work_item *item)
{
    enum err e = ERR_OK;
    pthread_mutex_lock(&q->lock);
    struct work_line *l = NULL;
    if (q->closed || q->queued >= q->max_queued)
        e = ERR_UNAVAILABLE;
    else if (!(l = line_of(q, item->key)))
        e = ERR_NO_MEMORY;
    if (!e) {
        item->number = q->came++;
        line_append(l, item);
        q->queued++;
        pthread_cond_signal(&q->changed);
    }
    pthread_mutex_unlock(&q->lock);
    return e;
}

/* With the lock held: the line whose turn it is; NULL when none may run. */
static struct work_line *line_next(const struct work_queue *q)
{
    struct work_line *best = NULL;
    for (struct work_line *l = q->lines; l; l = l->next) {
        bool may = l->first && l->running < q->max_running;
        if (may && (!best || l->first->number < best->first->number))
            best = l;
    }
    return best;
}

struct work_item *work_queue_pop(struct work_queue *q)
{
    struct work_item *item = NULL;
    struct work_line *l;
    pthread_mutex_lock(&q->lock);
    while (!(l = line_next(q)) && !(q->closed && q->queued == 0))
        pthread_cond_wait(&q->changed, &q->lock);
    if (l) {
        item = l->first;
        l->first = item->next;
        if (!l->first)
            l->last = NULL;
        l->running++;
        q->queued--;
        q->running++;
        if (q->closed && q->queued == 0)
            pthread_cond_broadcast(&q->changed);
    }
    pthread_mutex_unlock(&q->lock);
    return item;
}

/* With the lock held. */
static void line_remove(struct work_queue *q, struct work_line *gone)
{
    struct work_line **at = &q->lines;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    free(gone);
}

void work_queue_done(struct work_queue *q, struct work_item *item)
{
    pthread_mutex_lock(&q->lock);
    struct work_line *l = item->line;
    l->running--;
    q->running--;
    if (l->running == 0 && !l->first)
        line_remove(q, l);
    pthread_cond_signal(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

void work_queue_close(struct work_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

unsigned work_queue_length(struct work_queue *q)
{
    pthread_mutex_lock(&q->lock);
    unsigned n = q->queued;
    pthread_mutex_unlock(&q->lock);
    return n;
}

unsigned work_queue_active(struct work_queue *q)
{
    pthread_mutex_lock(&q->lock);
    unsigned n = q->queued + q->running;
    pthread_mutex_unlock(&q->lock);
    return n;
}
