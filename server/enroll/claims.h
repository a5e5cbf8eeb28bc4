/*
 * Claims as the last second knew them: who a certificate is, which templates and which rate it has.
 * What is found here only chooses the way; whether a claim may be used is judged in the registry.
 * Made by main, outlives every request. Threads: any.
 */
#pragma once

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "store/claim.h"

/* Begins the URN in the certificate of every claim made here. */
#define CLAIM_URN "urn:muster:claim:"

struct claims;

enum err claims_new(struct db *db, struct claims **ret_claims) MUST_CHECK;
void claims_free(struct claims *c);

/* The claim of a certificate, by the SHA-256 of its DER. ERR_NOT_FOUND: it is none. */
enum err claims_find(struct claims *c, struct bytes fingerprint, struct arena *arena,
                     struct claim_row *ret_claim) MUST_CHECK;

/* Whether the claim's scope has the template. */
bool claim_row_allows(const struct claim_row *claim, int64_t template_id);
