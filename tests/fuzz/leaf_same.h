/* What the two ways of chain_verify owe one another: what the plain one accepts the generic one
 * accepts, with the same verdict. Threads: any. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "pki/chain.h"

static inline void leaf_must(bool holds)
{
    if (!holds)
        abort();
}

static inline void leaf_same_text(const char *a, const char *b)
{
    leaf_must((a && b && strcmp(a, b) == 0) || (!a && !b));
}

static inline void leaf_same_info(const struct cert_info *a, const struct cert_info *b)
{
    leaf_must(memcmp(a->fingerprint, b->fingerprint, SHA256_BYTES) == 0);
    leaf_must(memcmp(a->spki_sha256, b->spki_sha256, SHA256_BYTES) == 0);
    leaf_must(bytes_equal(a->serial_number, b->serial_number));
    leaf_must(bytes_equal(a->subject_der, b->subject_der));
    leaf_must(bytes_equal(a->issuer_der, b->issuer_der));
    leaf_must(bytes_equal(a->san_der, b->san_der));
    leaf_must(bytes_equal(a->aki, b->aki) && bytes_equal(a->ski, b->ski));
    leaf_same_text(a->subject_text, b->subject_text);
    leaf_same_text(a->issuer_text, b->issuer_text);
    leaf_same_text(a->cn, b->cn);
    leaf_same_text(a->subject_serial_number, b->subject_serial_number);
    leaf_same_text(a->country, b->country);
    leaf_same_text(a->organization, b->organization);
    leaf_same_text(a->organizational_unit, b->organizational_unit);
    leaf_same_text(a->state_name, b->state_name);
    leaf_same_text(a->dn_qualifier, b->dn_qualifier);
    leaf_same_text(a->urn, b->urn);
    leaf_must(a->not_before_s == b->not_before_s && a->not_after_s == b->not_after_s);
    leaf_must(a->is_ca == b->is_ca && a->self_issued == b->self_issued);
    leaf_must(a->is_registration_authority == b->is_registration_authority);
}

/* Verifies in both ways, aborts when they differ; whether the plain way took it. */
static inline bool leaf_same(const struct trust *t, struct arena *arena, const struct bytes *chain,
                             size_t count, int64_t now_s)
{
    struct chain_verdict plain = {0}, generic = {0};
    struct fault fault = {0};
    bool taken = chain_verify_plain(t, arena, chain, count, now_s, &plain);
    enum err e = chain_verify_generic(t, arena, chain, count, now_s, &generic, &fault);
    if (taken) {
        leaf_must(e == ERR_OK && plain.anchor_id == generic.anchor_id);
        leaf_must(plain.leaf_expired_s == 0 && !plain.unknown_issuer);
        leaf_same_info(&plain.leaf, &generic.leaf);
    }
    return taken;
}
