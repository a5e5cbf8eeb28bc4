/*
 * What an enrolment costs, as a ratio: CPU time of musterd, PostgreSQL and the broker for whole
 * enrolments against bare GETs of the same listener, with a client certificate and without, in
 * turns within one run. Threads: main only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "usage.h"

enum { RATIO_MAX_LOADS = 8, RATIO_MAX_ROUNDS = 99, RATIO_MAX_CLIENTS = 1000 };

struct ratio_settings {
    size_t clients[RATIO_MAX_LOADS]; /* at once; the ratios told last are those of the last */
    size_t loads;                    /* how many of these */
    size_t requests;                 /* of each kind in a round */
    size_t rounds;                   /* the medians are told */
    size_t idle;                     /* TLS connections held open beside */
    size_t pace_percent;             /* of saturation, for the latencies; 0: not measured */
    bool claims;                     /* also provisioning with a claim, over HTTPS and MQTT */
    bool dps;                        /* also registering with DPS */
    struct usage processes;
    const char *keys_path;
    const char *folder; /* for what is handed to the operator's command */
};

/* Prints a table, with claims the lines "ratio claim-https N.NN" and, where there is a broker,
 * "ratio claim-mqtt N.NN", with dps those of dps-sas, dps-sas-csr and dps-x509, and last the lines
 * "ratio token N.NN" and "ratio cert N.NN". An exit code. */
int ratio_run(const struct ratio_settings *settings);
