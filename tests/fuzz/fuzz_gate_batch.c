/*
 * A batch for the broker's table. What is accepted is what its writer would write: encoded again it
 * is the same bytes; and its entries may be put into a table, which then has as many as remain.
 */
#include <stdlib.h>
#include <string.h>

#include "broker/batch.h"
#include "broker/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void integer_check(const uint8_t *p, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        must(p[i] == (uint8_t)(value >> (56 - 8 * i)));
}

static void header_check(const uint8_t *p, const struct batch *b)
{
    must(memcmp(p, WIRE_BATCH_MAGIC, 4) == 0);
    integer_check(p + 4, b->counter);
    integer_check(p + 12, (uint64_t)b->position);
    must(p[20] == b->flags && b->position >= 0);
    must(b->entries.data == p + WIRE_BATCH_HEADER_BYTES);
}

static const uint8_t *entry_check(const uint8_t *p, const struct batch_entry *e)
{
    must(p[0] == e->state && e->fingerprint == p + 1 && p[33] == e->thing_len);
    must(e->thing_len <= WIRE_MAX_THING_CHARS && (const uint8_t *)e->thing == p + 34);
    for (size_t i = 0; i < e->thing_len; i++)
        must(e->thing[i] > ' ' && !strchr("+#/\x7f", e->thing[i]));
    return p + 34 + e->thing_len;
}

static void entry_apply(struct table *t, const struct batch_entry *e)
{
    struct table_entry found;
    if (e->state == WIRE_ABSENT) {
        table_remove(t, e->fingerprint);
        must(!table_find(t, e->fingerprint, &found));
    } else if (table_put(t, e->fingerprint, e->state, e->thing, e->thing_len) == ERR_OK) {
        must(table_find(t, e->fingerprint, &found) && found.state == e->state);
        must(strlen(found.thing) == e->thing_len &&
             memcmp(found.thing, e->thing, e->thing_len) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct batch b;
    struct batch_entry e;
    _cleanup_(table_freep) struct table *t = NULL;
    if (batch_decode(bytes_of(data, len), &b))
        return 0;
    must(table_new(&t) == ERR_OK);
    header_check(data, &b);
    const uint8_t *p = b.entries.data;
    size_t count = 0;
    for (struct bytes rest = b.entries; rest.len > 0; count++) {
        must(batch_entry_decode(&rest, &e) == ERR_OK);
        p = entry_check(p, &e);
        entry_apply(t, &e);
    }
    must(count == b.count && p == data + len && table_count(t) <= count);
    return 0;
}
