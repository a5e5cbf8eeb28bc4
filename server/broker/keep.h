/*
 * When the table is saved (broker/state.h): in a forked child, so that no client waits for the
 * disk, and once more at the end. Threads: the broker's only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct plugin;

struct keep {
    char *path;        /* NULL: nothing is saved */
    int64_t max_age_s; /* a file older than that is not read; 0: however old */
    int64_t every_s;   /* at most so often while certificates change */
    bool changed;      /* since the last save began */
    int64_t begun_us;  /* the last save; monotonic */
    int64_t lasted_us;
    pid_t child; /* 0: none */
    bool failed; /* the last one; it was said */
};

/* At the broker's start: the table is as it was saved, and complete. */
void keep_load(struct plugin *p);

/* With every tick: begins a save when it is due, and takes up the child that has ended. */
void keep_tick(struct plugin *p, int64_t now_us);

/* At the broker's end. */
void keep_last(struct plugin *p);
