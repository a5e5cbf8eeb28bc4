#include "base/clock.h"

#include <stdio.h>

enum { US_PER_S = 1000000, NS_PER_US = 1000, NS_PER_S = 1000000000 };

int64_t clock_mono_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

struct timespec clock_deadline(int64_t us)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    int64_t ns = at.tv_nsec + us % US_PER_S * NS_PER_US;
    at.tv_sec += us / US_PER_S + ns / NS_PER_S;
    at.tv_nsec = ns % NS_PER_S;
    return at;
}

int clock_cond_init(pthread_cond_t *ret_cond)
{
    pthread_condattr_t attr;
    int rc = pthread_condattr_init(&attr);
    if (rc != 0)
        return rc;
    rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (rc == 0)
        rc = pthread_cond_init(ret_cond, &attr);
    pthread_condattr_destroy(&attr);
    return rc;
}

int64_t clock_wall_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_wall_s(void)
{
    return (int64_t)time(NULL);
}

void clock_now_text(char out[CLOCK_TEXT_BYTES])
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    struct tm tm;
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(out, CLOCK_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, CLOCK_TEXT_BYTES - n, ".%03uZ", (unsigned)(ts.tv_nsec / 1000000) % 1000);
}

void clock_text(int64_t wall_s, char out[CLOCK_TEXT_BYTES])
{
    time_t t = (time_t)wall_s;
    struct tm tm;
    if (!gmtime_r(&t, &tm)) {
        snprintf(out, CLOCK_TEXT_BYTES, "out of range");
        return;
    }
    strftime(out, CLOCK_TEXT_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm);
}
