/* Time: wall clock for people and certificates, monotonic for durations. Threads: any. */
#pragma once

#include <pthread.h>
#include <stdint.h>
#include <time.h>

enum { CLOCK_TEXT_BYTES = 32 };

/* Microseconds on a clock that never steps; only differences mean anything. */
int64_t clock_mono_us(void);

/* The moment us microseconds, at least 0, from now on that clock, as pthread_cond_timedwait takes
 * it. */
struct timespec clock_deadline(int64_t us);

/* A condition whose timed waits end on that clock. 0, or the number of an error; on Linux it does
 * not fail. The caller destroys it. */
int clock_cond_init(pthread_cond_t *ret_cond);

/* Microseconds since 1970 UTC. */
int64_t clock_wall_us(void);

/* Seconds since 1970 UTC. */
int64_t clock_wall_s(void);

/* Writes RFC 3339 UTC with milliseconds of the present moment, e.g. 2026-11-23T20:15:04.123Z. */
void clock_now_text(char out[CLOCK_TEXT_BYTES]);

/* Writes RFC 3339 UTC of wall_s, without a fraction. */
void clock_text(int64_t wall_s, char out[CLOCK_TEXT_BYTES]);
