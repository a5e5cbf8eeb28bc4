/*
 * The memory of one request: allocations live until arena_done, none is freed alone.
 * Bounded, so that no request can grow without limit. Threads: owner only.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct arena_block;

struct arena {
    struct arena_block *blocks;
    size_t used_bytes;
    size_t max_bytes;
};

/* Starts an empty arena that hands out at most max_bytes. */
void arena_init(struct arena *a, size_t max_bytes);

/* Frees everything; the arena may be initialised again. Secrets are cleansed. */
void arena_done(struct arena *a);

static inline void arena_donep(struct arena *a)
{
    arena_done(a);
}

/* Zeroed, 16-byte aligned memory, or NULL past max_bytes or out of memory. */
void *arena_alloc(struct arena *a, size_t len) MUST_CHECK;

/* A copy with a terminating NUL behind it (not counted in len); NULL as arena_alloc. */
void *arena_copy(struct arena *a, const void *data, size_t len) MUST_CHECK;

char *arena_strdup(struct arena *a, const char *s) MUST_CHECK;

/* printf into the arena; NULL as arena_alloc. */
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_CHECK;
