/* Time: wall clock for people and certificates, monotonic for durations. Threads: any. */
#pragma once

#include <stdint.h>
#include <time.h>

enum { CLOCK_TEXT_BYTES = 32 };

/* Microseconds on a clock that never steps; only differences mean anything. */
int64_t clock_mono_us(void);

/* Microseconds since 1970 UTC. */
int64_t clock_wall_us(void);

/* Seconds since 1970 UTC. */
int64_t clock_wall_s(void);

/* Writes RFC 3339 UTC with milliseconds of the present moment, e.g. 2026-11-23T20:15:04.123Z. */
void clock_now_text(char out[CLOCK_TEXT_BYTES]);

/* Writes RFC 3339 UTC of wall_s, without a fraction. */
void clock_text(int64_t wall_s, char out[CLOCK_TEXT_BYTES]);
