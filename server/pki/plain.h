/*
 * What the short ways through plain requests and certificates share. In OpenSSL 3.0 decoding a
 * SubjectPublicKeyInfo takes longer than verifying a signature, so keys are made from their point
 * and a template with the curve. Nothing here refuses: what is not plain is left to OpenSSL. For
 * the files of pki/ only. Threads: any.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "pki/key.h"

enum { PLAIN_MAX_SIGNATURE_BYTES = 160 };

/* The digest of ecdsa-with-SHA256 to SHA512 (RFC 5758 3.2), which have no parameters, from the
 * content of their AlgorithmIdentifier; NULL for any other. */
const EVP_MD *plain_digest(struct bytes algorithm);

/* The content of a BIT STRING of whole bytes; len 0 when it is none. */
struct bytes plain_bits(struct bytes bits);

/* A P-256 or P-384 key in the one spelling that key_encode_canonical has; its point is on the
 * curve. The caller frees it. */
bool plain_key(struct bytes spki, enum key_kind *ret_kind, EVP_PKEY **ret_key) MUST_CHECK;

/* Whether the key made this signature of those bytes. */
bool plain_verify(EVP_PKEY *key, const EVP_MD *digest, struct bytes signature,
                  struct bytes of) MUST_CHECK;
