/* A client of our own listener, for the watchdog. Threads: any; blocks. */
#pragma once

#include <stdint.h>

#include "base/err.h"

/* GET /healthz over a TLS connection of its own: ERR_OK when it was told 200. Every wait is
 * bounded by timeout_ms. The certificate is not verified: nothing is sent, nothing believed. */
enum err probe_health(const char *address, uint16_t port, unsigned timeout_ms) MUST_CHECK;
