/*
 * Whether a client's certificate chain leads to a CA that we know, and if not, why, in words
 * that help (RFC 5280 section 6). A trust set is immutable once made; any number of threads
 * may verify against it; its maker frees it when the last of them is done.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "model/fault.h"
#include "pki/cert.h"

struct trust;

/* An anchor is trusted as it is, root or not: chains are followed up to the anchor nearest to the
 * leaf. A helper only completes chains. A chain through a refused CA's key fails whatever is
 * above it: an operator took it out of service. */
enum trust_role { TRUST_ANCHOR, TRUST_HELPER, TRUST_REFUSED };

/* One CA; id is the caller's name of it. */
struct trust_ca {
    struct bytes der;
    enum trust_role role;
    int64_t id;
    struct bytes crl;  /* what is on it is refused (RFC 5280 6.3); len 0: none */
    bool crl_required; /* without a CRL that is in date nothing of this CA is accepted */
};

enum err trust_new(const struct trust_ca *cas, size_t count, struct trust **ret_trust) MUST_CHECK;
/* Every certificate of a PEM text as an anchor. */
enum err trust_parse_pem(struct bytes pem, struct trust **ret_trust) MUST_CHECK;
void trust_free(struct trust *t);
DEFINE_CLEANUP(struct trust *, trust_free);

struct chain_verdict {
    int64_t anchor_id;     /* the CA the chain ends at */
    struct cert_info leaf; /* filled whenever the leaf parses, also on refusal */
    int64_t
        leaf_expired_s; /* refused for nothing but the leaf having expired so long ago; else 0 */
    const char *unknown_issuer;      /* RFC 2253 name of the issuer that was not found; else NULL */
    struct bytes unknown_issuer_der; /* its Name */
    struct bytes unknown_aki;        /* the AKI that asks for it, len 0: none */
};

/*
 * chain[0] is the leaf, the rest in any order, count >= 1, at most CERT_MAX_CHAIN. now_s is the
 * server's wall clock. Purpose: a leaf with an EKU must have clientAuth. Faults, each with a
 * detail that names the certificate, the issuer, the AKI, how long it has expired and the
 * server's time as it applies: chain.malformed, ca.not_registered, chain.incomplete (an
 * intermediate was sent or is a helper, and the issuer of that one was not found),
 * chain.signature_invalid, chain.invalid, cert.expired, cert.not_yet_valid, cert.revoked and
 * ca.crl_overdue by the CRLs of the set.
 * An untrusted chain is reported as such even when it has also expired.
 */
enum err chain_verify(const struct trust *t, struct arena *arena, const struct bytes *chain,
                      size_t count, int64_t now_s, struct chain_verdict *ret_verdict,
                      struct fault *fault) MUST_CHECK;

/* The same for the certificate of a TPM's endorsement key: of the leaf no purpose is asked but
 * tcg-kp-EKCertificate (TCG EK Credential Profile), which it must name. */
enum err chain_verify_endorsement(const struct trust *t, struct arena *arena,
                                  const struct bytes *chain, size_t count, int64_t now_s,
                                  struct chain_verdict *ret_verdict,
                                  struct fault *fault) MUST_CHECK;

/* The two ways of chain_verify; for tests. The plain way never refuses: it says true, with the
 * same verdict as the generic way, for a leaf of the usual shape right under an anchor, and
 * leaves everything else to the generic one. */
bool chain_verify_plain(const struct trust *t, struct arena *arena, const struct bytes *chain,
                        size_t count, int64_t now_s, struct chain_verdict *ret_verdict) MUST_CHECK;
enum err chain_verify_generic(const struct trust *t, struct arena *arena, const struct bytes *chain,
                              size_t count, int64_t now_s, struct chain_verdict *ret_verdict,
                              struct fault *fault) MUST_CHECK;
