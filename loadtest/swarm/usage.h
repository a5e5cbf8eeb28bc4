/*
 * CPU time and memory of processes, from /proc: of musterd and of every process of a PostgreSQL,
 * also those that were born on the way, and of a broker. Threads: owner only.
 */
#pragma once

#include <stdint.h>

struct usage {
    int server;   /* process ids; 0: not measured */
    int database; /* of the postmaster */
    int broker;
};

struct usage_reading {
    int64_t server_us; /* of CPU */
    int64_t database_us;
    int64_t broker_us;
    uint32_t server_kib; /* resident */
    uint32_t server_peak_kib;
};

void usage_read(const struct usage *u, struct usage_reading *ret_reading);
