/*
 * Reading other CAs' revocation lists (RFC 5280 section 5). Threads: any.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "model/revocation.h"

enum { CRL_MAX_BYTES = 4 << 20, CRL_OWN_MAX_BYTES = 256 << 20 };

/* All of the arena. */
struct crl_info {
    struct bytes der;
    struct bytes number; /* cRLNumber, big endian; len 0: none */
    int64_t this_update_s;
    int64_t next_update_s;
    struct revoked *rows;
    size_t count;
};

/* PEM or DER. ERR_INVALID with ret_why, a constant, for what is no CRL, is larger than
 * CRL_MAX_BYTES, has no nextUpdate, or covers only a part of its issuer's certificates: delta and
 * partitioned CRLs, and any other critical extension. */
enum err crl_read(struct bytes text, struct arena *arena, struct crl_info *ret_info,
                  const char **ret_why) MUST_CHECK;

/* The same for a CRL of a CA of our own, whose every entry counts: up to CRL_OWN_MAX_BYTES, delta
 * and partitioned ones too. */
enum err crl_read_own(struct bytes text, struct arena *arena, struct crl_info *ret_info,
                      const char **ret_why) MUST_CHECK;

/* Whether that CA made it: its name, its key, a signature of at least 112 bits; and it may sign
 * CRLs (RFC 5280 4.2.1.3). */
bool crl_is_of(struct bytes der, X509 *ca);
