#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"

enum { BLOCK_BYTES = 8192, ALIGN = 16 };

struct arena_block {
    struct arena_block *next;
    size_t used;
    size_t size;
    _Alignas(ALIGN) uint8_t data[];
};

void arena_init(struct arena *a, size_t max_bytes)
{
    *a = (struct arena){.max_bytes = max_bytes};
}

void arena_done(struct arena *a)
{
    struct arena_block *b = a->blocks;
    while (b) {
        struct arena_block *next = b->next;
        secret_cleanse(b->data, b->used);
        free(b);
        b = next;
    }
    a->blocks = NULL;
    a->used_bytes = 0;
}

static struct arena_block *block_new(struct arena *a, size_t len)
{
    size_t size = len > BLOCK_BYTES ? len : BLOCK_BYTES;
    struct arena_block *b = malloc(sizeof(*b) + size);
    if (!b)
        return NULL;
    b->used = 0;
    b->size = size;
    b->next = a->blocks;
    a->blocks = b;
    return b;
}

void *arena_alloc(struct arena *a, size_t len)
{
    if (len > a->max_bytes)
        return NULL;
    size_t want = (len + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (want == 0)
        want = ALIGN;
    if (want > a->max_bytes || a->used_bytes > a->max_bytes - want)
        return NULL;
    struct arena_block *b = a->blocks;
    if (!b || b->size - b->used < want) {
        b = block_new(a, want);
        if (!b)
            return NULL;
    }
    void *p = b->data + b->used;
    b->used += want;
    a->used_bytes += want;
    memset(p, 0, want);
    return p;
}

void *arena_copy(struct arena *a, const void *data, size_t len)
{
    if (len >= a->max_bytes)
        return NULL;
    char *p = arena_alloc(a, len + 1);
    if (p && len > 0)
        memcpy(p, data, len);
    return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_copy(a, s, strlen(s));
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (len < 0)
        return NULL;
    char *p = arena_alloc(a, (size_t)len + 1);
    if (!p)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(p, (size_t)len + 1, fmt, ap);
    va_end(ap);
    return p;
}
