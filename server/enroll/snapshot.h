/*
 * The insides of a snapshot, for the files that make one and look things up in it. Immutable once
 * made, counted by reference. Threads: any.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "base/arena.h"
#include "enroll/catalog.h"

struct catalog_psk;

enum { SNAPSHOT_MAX_ISSUERS = 64 };

struct snapshot {
    atomic_int references;
    struct arena arena;
    int64_t epoch;
    struct catalog_product *products;
    size_t product_count;
    struct catalog_template *templates;
    size_t template_count;
    struct catalog_ca *cas;
    size_t ca_count;
    struct issuer *issuers[SNAPSHOT_MAX_ISSUERS];
    size_t issuer_count;
    struct catalog_psk *psks;
    size_t psk_count;
    struct trust *trust;
    bool lacks_key; /* a token was away */
    int64_t loaded_us;
};

/* Everything that replicas cache, read anew; one reference, the caller's. sealer NULL: symmetric
 * keys stay closed. What the arena holds is overwritten at the end. */
enum err snapshot_load(struct db *db, const struct signer_source *keys, const struct sealer *sealer,
                       struct snapshot **ret_snapshot) MUST_CHECK;
