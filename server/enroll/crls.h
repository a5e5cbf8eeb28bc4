/*
 * CRLs of our issuing CAs: where certificates say they are, and signing those that are due
 * (docs/revocation.md). Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "model/profile.h"
#include "pki/issuer.h"

struct service;

enum { CRL_MAX_SHARDS = 256 };

/* Of the configuration; the text is borrowed. */
struct revocation_settings {
    bool serves;     /* there is a listener or an address: CRLs are signed */
    const char *url; /* what stands before /crl/, /ocsp and /ca/ in certificates; NULL: nothing */
    int shards;      /* of new certificates' CRLs: a power of two */
    int64_t crl_life_s;  /* thisUpdate to nextUpdate */
    int64_t crl_every_s; /* how often a full CRL is signed when something was revoked */
    int64_t ocsp_life_s; /* of an answer without nonce */
};

/* Adds what the profile does not say itself: the CRL's shard for a key, OCSP, the issuer's
 * certificate. Changes nothing where no address is configured. */
enum err crls_addresses(const struct revocation_settings *s, const struct issuer *issuer,
                        const uint8_t *spki_sha256, struct arena *arena,
                        struct cert_profile *profile) MUST_CHECK;

/* Signs what is due, where this replica leads; what cannot be signed is logged. */
void crls_run(struct service *service);
