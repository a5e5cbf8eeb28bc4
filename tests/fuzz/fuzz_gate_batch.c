/*
 * A batch for the broker's table. What is accepted is what its writer would write: encoded again it
 * is the same bytes; and its entries may be put into a table, which then has as many as remain.
 */
#include <stdlib.h>
#include <string.h>

#include "broker/batch.h"
#include "broker/table.h"
#include "model/policy.h"

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

static const uint8_t *certificate_check(const uint8_t *p, const struct batch_entry *e)
{
    struct grants g;
    must(p[0] == e->state && e->fingerprint == p + 1 && p[33] == e->thing.len);
    must(e->thing.len <= WIRE_MAX_THING_CHARS && e->thing.data == p + WIRE_ENTRY_BYTES);
    for (size_t i = 0; i < e->thing.len; i++)
        must(e->thing.data[i] > ' ' && !strchr("+#/\x7f", e->thing.data[i]));
    must(e->grants.data == e->thing.data + e->thing.len && grants_decode(e->grants, &g));
    return e->grants.data + e->grants.len;
}

static const uint8_t *entry_check(const uint8_t *p, const struct batch_entry *e)
{
    if (e->kind == BATCH_CERTIFICATE)
        return certificate_check(p, e);
    must(p[0] == (e->kind == BATCH_POLICY ? WIRE_POLICY : WIRE_CA));
    must(e->kind == BATCH_CA || policy_valid(e->body));
    return e->body.data + e->body.len;
}

static void certificate_apply(struct table *t, const struct batch_entry *e)
{
    const struct table_value value = {e->state, e->thing, e->grants};
    struct table_entry found;
    if (e->state == WIRE_ABSENT) {
        table_remove(t, e->fingerprint);
        must(!table_find(t, e->fingerprint, &found));
    } else if (table_put(t, e->fingerprint, &value) == ERR_OK) {
        must(table_find(t, e->fingerprint, &found) && found.state == e->state);
        must(strlen(found.thing) == e->thing.len &&
             (e->thing.len == 0 || memcmp(found.thing, e->thing.data, e->thing.len) == 0));
        must(bytes_equal(found.grants, e->grants));
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
        if (e.kind == BATCH_CERTIFICATE)
            certificate_apply(t, &e);
    }
    must(count == b.count && p == data + len && table_count(t) <= count);
    return 0;
}
