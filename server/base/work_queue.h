/*
 * A bounded queue of work that no key can have for itself: a key has at most so many items running
 * at a time, and the oldest item of a key below that is taken next. Items are the caller's,
 * embedded in what they are part of. Whoever made a queue frees it. Threads: any.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"

struct work_line;

/* Set key before work_queue_push; the rest is the queue's until work_queue_done. */
struct work_item {
    uint64_t key;
    uint64_t number; /* of its coming */
    struct work_line *line;
    struct work_item *next;
};

struct work_queue;

enum err work_queue_new(unsigned max_queued, unsigned max_running_per_key,
                        struct work_queue **ret_queue) MUST_CHECK;

/* Nothing is queued or running any more. */
void work_queue_free(struct work_queue *q);

/* ERR_UNAVAILABLE when it is full or closed, ERR_NO_MEMORY. */
enum err work_queue_push(struct work_queue *q, struct work_item *item) MUST_CHECK;

/* Waits for the next item; NULL once the queue is closed and empty. Each item that is popped is
 * given to work_queue_done, which forgets it. */
struct work_item *work_queue_pop(struct work_queue *q) MUST_CHECK;
void work_queue_done(struct work_queue *q, struct work_item *item);

/* Nothing comes in any more; what is queued is still handed out. */
void work_queue_close(struct work_queue *q);

/* Items queued, and items queued or running. */
unsigned work_queue_length(struct work_queue *q);
unsigned work_queue_active(struct work_queue *q);
