/*
 * PSK groups, and the keys of their devices out of the snapshot that is there: a handshake never
 * asks the registry. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/secret.h"

struct catalog;
struct catalog_product;
struct snapshot;

/* A group of devices whose initial keys are derived from a master of its own (TLS-PSK). */
struct catalog_psk {
    int64_t id; /* of the enrollment */
    const char *name;
    const struct catalog_product *product;
    int64_t template_id;
    bool enabled;
    struct bytes masters[2]; /* primary, secondary; secret; len 0: they cannot be opened */
};

/* The PSK group of a product; NULL: it has none. */
const struct catalog_psk *snapshot_psk(const struct snapshot *s, const char *product);
bool snapshot_has_psk(const struct snapshot *s);

/* Whether any product has a PSK group, disabled or not. */
bool psk_expected(struct catalog *c);

/* The key of the device that an identity names: HMAC-SHA256 over the identity as it was sent, under
 * its group's master. Where there is none it is made the same way under decoy, so that nobody
 * learns which identities there are; ret_why then says why, else it is NULL. */
enum err psk_derive(struct catalog *c, const uint8_t decoy[SHA256_BYTES], struct bytes identity,
                    uint8_t ret_key[SHA256_BYTES], const char **ret_why) MUST_CHECK;
