/*
 * Which unknown certificates were told a moment ago, so that a device that tries again and again is
 * told once a second, and all together not more than so many a second. A fixed table: what finds
 * its place taken by a newer one is told again. Threads: owner only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/secret.h"

enum { RECENT_SLOTS = 4096, RECENT_MAX_PER_S = 2000 };

struct recent {
    struct {
        uint64_t key;
        int64_t at_us;
    } slots[RECENT_SLOTS];
    int64_t second;
    unsigned count;
};

/* Whether the certificate is to be told now. */
bool recent_take(struct recent *r, const uint8_t cert[SHA256_BYTES], int64_t now_us);
