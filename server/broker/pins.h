/*
 * The certificates of musterd's replicas, pinned by fingerprint. Threads: owner only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"

enum { PINS_MAX = 64 };

struct pins {
    size_t count;
    uint8_t certs[PINS_MAX][SHA256_BYTES];
};

/* The certificates of a PEM file, at least one. ERR_SYSTEM: it cannot be opened; ERR_INVALID: a
 * certificate does not parse, there is none, or more than PINS_MAX. */
enum err pins_load(const char *path, struct pins *ret_pins) MUST_CHECK;

bool pins_have(const struct pins *p, const uint8_t cert[SHA256_BYTES]);
