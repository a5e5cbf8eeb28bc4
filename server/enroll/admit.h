/*
 * Just-in-time provisioning of a certificate that a broker was shown: the broker has made sure
 * that the client has its key. Threads: any.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"

struct service;

struct admit_contact {
    const char *request_id;
    int64_t since_us; /* clock_mono_us */
    const char *source;
    const char *client_id;
    struct bytes leaf; /* DER */
};

/* Tells nobody: the registry and the trail have what came of it. Where there is no room now the
 * device's next try does it. */
void admit_unknown(struct service *service, const struct admit_contact *c, struct arena *arena);
