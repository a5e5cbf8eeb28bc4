#include "broker/batch.h"

#include <stdbool.h>

#include "base/secret.h"

enum { MAGIC_BYTES = sizeof(WIRE_BATCH_MAGIC) - 1 };

static uint64_t integer_decode(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

/* As the registry has them; in particular nothing that means something in a topic. */
static bool thing_valid(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!letter && !(c >= '0' && c <= '9') && c != ':' && c != '_' && c != '-')
            return false;
    }
    return len <= WIRE_MAX_THING_CHARS;
}

static bool entry_valid(const struct batch_entry *e, uint8_t state)
{
    switch (state) {
    case WIRE_ABSENT:
    case WIRE_CLAIM:
        return e->thing_len == 0;
    case WIRE_OPERATIONAL:
    case WIRE_UNUSED:
        return thing_valid(e->thing, e->thing_len);
    }
    return false;
}

enum err batch_entry_decode(struct bytes *rest, struct batch_entry *ret_entry)
{
    const uint8_t *p = rest->data;
    if (rest->len < WIRE_ENTRY_BYTES)
        return ERR_INVALID;
    struct batch_entry e = {.fingerprint = p + 1, .thing_len = p[WIRE_ENTRY_BYTES - 1]};
    size_t len = WIRE_ENTRY_BYTES + e.thing_len;
    if (rest->len < len)
        return ERR_INVALID;
    e.thing = (const char *)p + WIRE_ENTRY_BYTES;
    if (!entry_valid(&e, p[0]))
        return ERR_INVALID;
    e.state = (enum wire_state)p[0];
    *rest = bytes_of(p + len, rest->len - len);
    *ret_entry = e;
    return ERR_OK;
}

enum err batch_decode(struct bytes in, struct batch *ret_batch)
{
    struct batch_entry e;
    if (in.len < WIRE_BATCH_HEADER_BYTES || memcmp(in.data, WIRE_BATCH_MAGIC, MAGIC_BYTES) != 0)
        return ERR_INVALID;
    struct batch b = {
        .counter = integer_decode(in.data + MAGIC_BYTES),
        .position = (int64_t)integer_decode(in.data + MAGIC_BYTES + 8),
        .flags = in.data[MAGIC_BYTES + 16],
        .entries = bytes_of(in.data + WIRE_BATCH_HEADER_BYTES, in.len - WIRE_BATCH_HEADER_BYTES),
    };
    if (b.position < 0 || (b.flags & ~(WIRE_BATCH_CLEAR | WIRE_BATCH_READY)) != 0)
        return ERR_INVALID;
    for (struct bytes rest = b.entries; rest.len > 0; b.count++) {
        if (b.count == WIRE_MAX_BATCH_ENTRIES || batch_entry_decode(&rest, &e))
            return ERR_INVALID;
    }
    *ret_batch = b;
    return ERR_OK;
}
