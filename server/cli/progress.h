/*
 * How far a long command is, on standard error where that is a terminal. Threads: main only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *what; /* in the plural */
    int64_t total;    /* 0: not known */
    int64_t began_us;
    int64_t first; /* where it began */
    bool on;
};

/* total and first count what progress_show counts. */
void progress_begin(struct progress *p, const char *what, int64_t first, int64_t total);

/* done of total; count: how many things that is, as they are told. */
void progress_show(const struct progress *p, int64_t done, int64_t count);

/* Leaves the line. */
void progress_end(const struct progress *p);
