/*
 * A question to a listener of this machine over TLS, as a health check asks it. The listener's
 * certificate is not verified: its names are for devices, and nothing is told to it. Threads: any.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"

/* GET path at address (numeric; the wildcard asks loopback) and port. The HTTP status whatever it
 * is; ERR_SYSTEM when nobody answers, each read or write taking at most timeout_s. */
enum err probe_get(const char *address, uint16_t port, const char *path, int timeout_s,
                   int *ret_status) MUST_CHECK;
