#include "mqtt/gate_batch.h"

#include <stdio.h>

static void integer_add(struct buf *b, uint64_t v)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(v >> (8 * (7 - i)));
    buf_add(b, bytes, sizeof(bytes));
}

static void byte_add(struct buf *b, size_t v)
{
    uint8_t byte = (uint8_t)v;
    buf_add(b, &byte, 1);
}

/* Only devices have names there. */
static void entry_add(struct buf *b, const struct gate_entry *e)
{
    bool named = e->state == WIRE_OPERATIONAL || e->state == WIRE_UNUSED;
    size_t len = named ? strlen(e->thing) : 0;
    byte_add(b, e->state);
    buf_add(b, e->fingerprint, sizeof(e->fingerprint));
    byte_add(b, len);
    buf_add(b, e->thing, len);
}

void gate_batch_encode(const struct gate_batch *head, const struct gate_entry *entries,
                       size_t count, struct buf *b)
{
    buf_add_text(b, WIRE_BATCH_MAGIC);
    integer_add(b, head->counter);
    integer_add(b, (uint64_t)head->position);
    byte_add(b, head->flags);
    for (size_t i = 0; i < count; i++)
        entry_add(b, &entries[i]);
}

enum err gate_status_parse(struct bytes text, struct gate_status *ret_status)
{
    char copy[GATE_MAX_STATUS_BYTES], again[GATE_MAX_STATUS_BYTES];
    unsigned long long counter = 0;
    long long position = 0, entries = 0;
    int ready = 0;
    if (text.len == 0 || text.len >= sizeof(copy))
        return ERR_INVALID;
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    if (sscanf(copy, WIRE_GATE_FORMAT, &counter, &position, &entries, &ready) != 4)
        return ERR_INVALID;
    snprintf(again, sizeof(again), WIRE_GATE_FORMAT, counter, position, entries, ready);
    if (strcmp(copy, again) != 0 || position < 0 || entries < 0 || (ready & ~1) != 0)
        return ERR_INVALID;
    *ret_status = (struct gate_status){counter, position, entries, ready == 1};
    return ERR_OK;
}
