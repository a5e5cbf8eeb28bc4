/*
 * A growing byte buffer with a named maximum. A write past the maximum marks the buffer as
 * overflowed and is dropped whole, so that a writer may check once, at the end.
 * The owner calls buf_done. Threads: owner only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct buf {
    uint8_t *data; /* always NUL-terminated once something was written */
    size_t len;
    size_t cap;
    size_t max_bytes;
    bool overflow; /* some write did not fit, or memory ran out */
};

void buf_init(struct buf *b, size_t max_bytes);
void buf_done(struct buf *b);

static inline void buf_donep(struct buf *b)
{
    buf_done(b);
}

void buf_add(struct buf *b, const void *data, size_t len);
void buf_add_text(struct buf *b, const char *s);
void buf_add_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Forgets the content, keeps the memory. */
void buf_reset(struct buf *b);

/* The content as a C string, "" when empty; valid until the next write. */
const char *buf_text(const struct buf *b);

static inline struct bytes buf_bytes(const struct buf *b)
{
    return bytes_of(b->data, b->len);
}
