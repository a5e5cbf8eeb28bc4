/*
 * What a run leaves behind: result.json for programs, report.html for people, one file that needs
 * nothing else. Threads: main only.
 */
#pragma once

#include "audit.h"
#include "scenario.h"
#include "tally.h"
#include "usage.h"

struct report {
    const struct scenario *scenario;
    struct tally *tally;
    struct tally *hostile;     /* NULL: none */
    const struct audit *audit; /* NULL: none was made */
    struct usage_reading before, after;
    int64_t began_wall_s;
    int64_t took_us;
    size_t devices;
    size_t failed;
    int passed;
};

/* Writes both into the folder; says on standard error what is wrong. */
enum err report_write(const struct report *r, const char *folder) MUST_CHECK;
