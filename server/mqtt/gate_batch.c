#include "mqtt/gate_batch.h"

#include <stdio.h>
#include <string.h>

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

static void length_add(struct buf *b, size_t len)
{
    byte_add(b, len >> 8);
    byte_add(b, len & 255);
}

/* Only devices have names and grants there. */
void gate_batch_certificate(const struct gate_entry *e, struct bytes grants, struct buf *b)
{
    bool device = e->state == WIRE_OPERATIONAL || e->state == WIRE_UNUSED;
    size_t len = device ? strlen(e->thing) : 0;
    byte_add(b, e->state);
    buf_add(b, e->fingerprint, sizeof(e->fingerprint));
    byte_add(b, len);
    length_add(b, device ? grants.len : 0);
    buf_add(b, e->thing, len);
    if (device)
        buf_add(b, grants.data, grants.len);
}

void gate_batch_policy(uint32_t number, struct bytes form, struct buf *b)
{
    byte_add(b, WIRE_POLICY);
    for (int shift = 24; shift >= 0; shift -= 8)
        byte_add(b, number >> shift & 255);
    length_add(b, form.len);
    buf_add(b, form.data, form.len);
}

void gate_batch_ca(struct bytes der, struct buf *b)
{
    byte_add(b, WIRE_CA);
    length_add(b, der.len);
    buf_add(b, der.data, der.len);
}

void gate_batch_begin(const struct gate_batch *head, struct buf *b)
{
    buf_add_text(b, WIRE_BATCH_MAGIC);
    integer_add(b, head->counter);
    integer_add(b, (uint64_t)head->position);
    byte_add(b, head->flags);
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
