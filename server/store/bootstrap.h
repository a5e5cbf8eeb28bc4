/*
 * What musterd writes into the registry without the admin API: our own CAs and admin tokens,
 * in one transaction. Threads: any.
 */
#pragma once

#include <stdint.h>

#include "base/bytes.h"
#include "store/db.h"
#include "store/statements.h"

/* One of our own CAs. */
struct bootstrap_ca {
    const char *kind; /* root, issuing, rollover: over a key that a root has already */
    const char *name;
    struct bytes der;
    struct bytes fingerprint;
    struct bytes spki_sha256;
    const char *subject;
    const char *key_reference; /* NULL: root */
    int64_t not_after_s;
};

struct bootstrap {
    const struct bootstrap_ca *cas;
    size_t ca_count;
    const char *admin_name; /* NULL: no token */
    struct bytes admin_hash;
};

/* Writes everything or nothing, with its audit rows (actor musterd). ERR_CONFLICT: a CA or a
 * token of that name or key is there already; ret_message tells which (DB_MAX_MESSAGE_BYTES). */
enum err bootstrap_write(struct db *db, const struct bootstrap *b, char *ret_message) MUST_CHECK;

/* How many issuing CAs there are. */
enum err bootstrap_issuers(struct db *db, int *ret_count) MUST_CHECK;

extern const struct stmt_set bootstrap_statements;
