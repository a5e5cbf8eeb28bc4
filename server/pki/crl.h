/*
 * Certificate revocation lists (RFC 5280 section 5), full and delta, encoded by hand: an entry is
 * some 50 bytes and costs no object. Threads: any.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "model/revocation.h"
#include "pki/issuer.h"

/* All borrowed. */
struct crl_order {
    uint32_t number;
    uint32_t base_number; /* of a delta CRL's full one; 0: this is a full one */
    int64_t this_update_s;
    int64_t next_update_s;
    const char *scope_url;    /* issuingDistributionPoint of a shard; NULL: all of the issuer's */
    const char *freshest_url; /* where the delta CRL is; NULL: said nowhere */
    const struct revoked *rows;
    size_t count;
};

/* DER in the arena, which takes some 200 bytes an entry at most. ERR_INVALID for a time or serial
 * number that cannot be encoded, and for a kind of key that signs no certificates here. */
enum err crl_sign(const struct issuer *issuer, const struct crl_order *order, struct arena *arena,
                  struct bytes *ret_der) MUST_CHECK;
