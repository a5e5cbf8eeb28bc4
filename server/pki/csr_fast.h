/*
 * The short way through a request that is spelled as nearly every device spells it: DER, a P-256 or
 * P-384 key in the canonical form, ECDSA with SHA-2. OpenSSL 3.0 takes longer to decode a public
 * key than to verify a signature with it. For pki/ and its tests only. Threads: any.
 */
#pragma once

#include <openssl/types.h>

#include "pki/csr.h"

/* A request taken apart. */
struct csr_fast {
    struct X509_req_st *request; /* subject, attributes and key; without the signature; owned */
    enum key_kind kind;
    struct bytes spki; /* in the DER given */
};

/*
 * Takes a request apart and verifies the proof of possession. ERR_NOT_FOUND: not of the form, the
 * general way decides. ERR_DENIED: of the form, and the signature does not match.
 */
enum err csr_fast_decode(struct bytes der, struct csr_fast *ret_request) MUST_CHECK;

/* csr_decode the general way, whatever the form. */
enum err csr_decode_general(struct arena *arena, struct bytes der, struct csr *ret_csr,
                            struct fault *fault) MUST_CHECK;
