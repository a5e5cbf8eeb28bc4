/*
 * What the broker's table of admitted certificates is to hold (schema/0013_gate.sql): all of it, or
 * what has changed since a position. A position is a transaction number; every change made below
 * it has been told. States are those of the moment of reading, so telling one twice does no harm.
 * Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/secret.h"
#include "model/broker_wire.h"
#include "store/db.h"
#include "store/statements.h"

struct gate_entry {
    enum wire_state state;
    uint8_t fingerprint[SHA256_BYTES];
    char thing[WIRE_MAX_THING_CHARS + 1];
    const char *policies;     /* their numbers, separated by commas; NULL: none are attached */
    const char *thing_values; /* JSON: type and attributes, where a policy names some; else NULL */
};

/* Entries in the arena, at most as many as were asked for; last_... says where the next page
 * begins.
 */
struct gate_page {
    struct gate_entry *entries;
    size_t count;
    bool more; /* it is full, so there may be more */
    int64_t last_position;
    int64_t last_id;
};

/* Where the registry stands. */
struct gate_now {
    int64_t stable; /* every transaction below it is finished */
    int64_t newest; /* none above it has begun */
    int64_t pruned; /* a position must be above it */
    int64_t epoch;  /* of what replicas cache, CAs among it */
    const char *snapshot;
};
enum err gate_now_get(struct db *db, struct arena *arena, struct gate_now *ret_now) MUST_CHECK;

/* A reading of changes, page by page. */
struct gate_cursor {
    int64_t base;     /* the position that the table has */
    int64_t stable;   /* of gate_now_get, before the first page */
    const char *seen; /* a snapshot; what it showed above stable is left out; NULL: nothing is */
    int64_t after_position;
    int64_t after_id;
};
enum err gate_changes_load(struct db *db, struct arena *arena, const struct gate_cursor *cursor,
                           unsigned most, struct gate_page *ret_page) MUST_CHECK;

/* Everything the broker may admit with an id above after. */
enum err gate_claims_load(struct db *db, struct arena *arena, int64_t after, unsigned most,
                          struct gate_page *ret_page) MUST_CHECK;
enum err gate_certificates_load(struct db *db, struct arena *arena, int64_t after, unsigned most,
                                struct gate_page *ret_page) MUST_CHECK;

/* Policies by number. */
struct gate_policy {
    int64_t number;
    const char *document; /* JSON */
};
enum err gate_policies_load(struct db *db, struct arena *arena, const char *numbers,
                            struct gate_policy **ret_policies, size_t *ret_count) MUST_CHECK;

/* A certificate that may be at a broker, with its DER: by fingerprint, or where that has len 0 by
 * the name of its thing; product_id 0: of any. ERR_NOT_FOUND. */
enum err gate_one_load(struct db *db, struct arena *arena, struct bytes fingerprint,
                       const char *thing, int64_t product_id, struct gate_entry *ret_entry,
                       struct bytes *ret_der) MUST_CHECK;

/* All CAs as DER. */
enum err gate_cas_load(struct db *db, struct arena *arena, struct bytes **ret_ders,
                       size_t *ret_count) MUST_CHECK;

extern const struct stmt_set gate_statements;
