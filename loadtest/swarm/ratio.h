/*
 * What an enrolment costs, as a ratio: CPU time of musterd and PostgreSQL for whole enrolments
 * against bare GETs of the same listener, with a client certificate and without, in turns within
 * one run. Threads: main only.
 */
#pragma once

#include <stddef.h>

#include "usage.h"

struct ratio_settings {
    size_t clients;  /* at once */
    size_t requests; /* of each kind in a round */
    size_t rounds;   /* the medians are told */
    struct usage processes;
    const char *keys_path;
    const char *folder; /* for what is handed to the operator's command */
};

/* Prints a table and last the lines "ratio token N.NN" and "ratio cert N.NN". An exit code. */
int ratio_run(const struct ratio_settings *settings);
