/*
 * After a run: what the registry says against what the devices hold. Nothing lost, nothing
 * doubled, nothing orphaned. Threads: main only.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>

#include "base/err.h"
#include "fleet.h"

struct audit {
    size_t devices;  /* of the run in the registry */
    size_t held;     /* certificates that devices hold */
    size_t assigned; /* devices that DPS told where to go */
    size_t lost;     /* held, but not live in the registry; or assigned, but not so in it */
    size_t doubled;  /* serials with more than one device, or more live certificates than may be */
    size_t orphaned; /* live in the registry, made for the run's claim and not registered, or
                      * registered with DPS, and held by nobody who ever asked in vain */
    size_t tokens;   /* bound tokens consumed without a certificate, or the reverse */
};

/* Asks PostgreSQL; complaints (at most a few of each kind) go to `out`. ERR_UNAVAILABLE when it
 * cannot be asked. */
enum err audit_run(const char *database, const char *prefix, const struct fleet *fleet, FILE *out,
                   struct audit *ret_audit) MUST_CHECK;

/* Whether everything is as it should be. */
int audit_clean(const struct audit *a);
