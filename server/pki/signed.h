/*
 * SIGNED{} of X.509: what was encoded by hand, with the algorithm and the signature behind it. For
 * pki/ only. Threads: any.
 */
#pragma once

#include <openssl/types.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"

struct signed_algorithm {
    struct bytes der;     /* AlgorithmIdentifier; len 0: a kind of key that is not for here */
    const EVP_MD *digest; /* NULL: the algorithm has its own */
};

/* SHA-256 for P-256 and RSA, SHA-384 for P-384, none for Ed25519. */
struct signed_algorithm signed_algorithm_of(EVP_PKEY *key);

/* The whole structure, DER in the arena. content is the DER of what is signed. */
enum err signed_make(const struct signed_algorithm *algorithm, EVP_PKEY *key, struct bytes content,
                     struct arena *arena, struct bytes *ret_der) MUST_CHECK;
