/*
 * The certificates the broker admits: fingerprint to state and thing name, for a million and more.
 * It grows a segment at a time and is emptied at once, so that no call takes long (docs/broker.md
 * has the figures). Only the first half of a fingerprint is kept: 128 bits that nobody can choose.
 * Whoever made a table frees it. Threads: owner only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/secret.h"
#include "model/broker_wire.h"

struct table;

struct table_entry {
    enum wire_state state;
    const char *thing;   /* "" when it has none; valid until the table changes */
    struct bytes grants; /* as on the wire (model/broker_wire.h); len 0: no policies */
};

enum err table_new(struct table **ret_table) MUST_CHECK;
void table_free(struct table *t);

DEFINE_CLEANUP(struct table *, table_free);

/* What a certificate is put with. */
struct table_value {
    enum wire_state state;
    struct bytes thing;  /* at most WIRE_MAX_THING_CHARS, no NUL */
    struct bytes grants; /* at most WIRE_MAX_GRANTS_BYTES */
};

/* Adds the certificate, or gives it another value. After ERR_NO_MEMORY it is as it was. */
enum err table_put(struct table *t, const uint8_t fingerprint[SHA256_BYTES],
                   const struct table_value *value) MUST_CHECK;

/* Whether it was there. */
bool table_remove(struct table *t, const uint8_t fingerprint[SHA256_BYTES]);

bool table_find(const struct table *t, const uint8_t fingerprint[SHA256_BYTES],
                struct table_entry *ret_entry);

/* Shows every certificate by the half of its fingerprint that is kept, in no order. */
enum { TABLE_KEY_BYTES = 16 };
void table_each(const struct table *t,
                void (*take)(void *arg, const uint8_t key[TABLE_KEY_BYTES],
                             const struct table_entry *entry),
                void *arg);

/* Empties the table; table_tidy gives the memory back, a little with every call. */
void table_clear(struct table *t);
void table_tidy(struct table *t);

size_t table_count(const struct table *t);

/* Memory in use, without the allocator's own. */
size_t table_bytes(const struct table *t);
