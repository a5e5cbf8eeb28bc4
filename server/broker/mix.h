/* A keyed hash for tables in memory: who chooses keys cannot choose chains. Threads: any. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct mix_key {
    uint64_t a;
    uint64_t b;
};

static inline uint64_t mix_fold(uint64_t x, uint64_t y)
{
    unsigned __int128 product = (unsigned __int128)x * y;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t mix_bytes(const struct mix_key *k, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t h = k->a ^ len;
    while (len > 0) {
        uint64_t word = 0;
        size_t n = len < sizeof(word) ? len : sizeof(word);
        memcpy(&word, p, n);
        h = mix_fold(h ^ word, k->b);
        p += n;
        len -= n;
    }
    return mix_fold(h, k->b ^ k->a);
}
