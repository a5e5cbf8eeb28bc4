/*
 * Admission gate: a bounded number of callers inside, a bounded number waiting with a
 * deadline, everybody else turned away at once. Threads: any.
 */
#pragma once

#include <pthread.h>

#include "base/err.h"

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t freed;
    unsigned max_inside;
    unsigned max_waiting;
    unsigned inside;
    unsigned waiting;
};

enum err gate_init(struct gate *g, unsigned max_inside, unsigned max_waiting) MUST_CHECK;
void gate_done(struct gate *g);

/* Enters, waiting at most timeout_ms. ERR_UNAVAILABLE when full or out of time. */
enum err gate_enter(struct gate *g, unsigned timeout_ms) MUST_CHECK;
void gate_leave(struct gate *g);

/* Other limits from now on; who is inside or waits already stays. */
void gate_limit(struct gate *g, unsigned max_inside, unsigned max_waiting);

struct gate_state {
    unsigned inside;
    unsigned waiting;
    unsigned max_inside;
    unsigned max_waiting;
};

/* How many are inside and how many wait, and how many may. */
void gate_look(struct gate *g, struct gate_state *ret_state);
