/*
 * A question to a listener of this machine over TLS, as a health check asks it. The listener's
 * certificate is not verified: its names are for devices, and nothing is told to it. Threads: any.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"

struct probe {
    const char *address; /* numeric; the wildcard asks loopback */
    uint16_t port;
    const char
        *balancers; /* ranges, or NULL; one that has this machine gets a PROXY header first */
    const char *path;
    unsigned timeout_ms; /* of each read and each write */
};

/* The status that a GET of path gets, whatever it is; ERR_SYSTEM when nobody answers. */
enum err probe_get(const struct probe *p, int *ret_status) MUST_CHECK;
