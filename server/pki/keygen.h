/*
 * Keys made for devices (RFC 7030 section 4.4): what a request says of how its private key is to
 * travel, the key itself, and its packing. A private key lives in the request's memory only.
 * Threads: any.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "model/fault.h"
#include "pki/csr.h"
#include "pki/issuer.h"

/* How the client wants its key. */
struct keygen_wish {
    bool encrypted;         /* asked for by one of the two attributes */
    struct bytes key_id;    /* of the client's key; len 0: a symmetric one was named */
    struct bytes recipient; /* DER of the certificate with that key; set by keygen_wish_check */
    bool aes128;            /* the client takes no AES-256-CBC */
};

/* From the attributes decryptKeyID, asymmDecryptKeyID (RFC 7030 4.4.1.1, 4.4.1.2) and
 * smimeCapabilities. Faults: csr.malformed, keygen.cipher_unsupported. */
enum err keygen_wish_take(struct arena *arena, const struct csr *csr, struct keygen_wish *ret_wish,
                          struct fault *fault) MUST_CHECK;

/* The key to encrypt for must be that of the client's certificate in TLS (len 0: none), named by
 * its subject key identifier: keygen.key_unknown. Never falls back to an unencrypted key. */
enum err keygen_wish_check(struct keygen_wish *wish, struct bytes client_der,
                           struct fault *fault) MUST_CHECK;

/* Makes a key of the request's kind and puts it into the request in place of the one it came
 * with; where there was no request, into one that says nothing else. The caller frees with
 * key_free. */
enum err keygen_make(struct csr *csr, EVP_PKEY **ret_key) MUST_CHECK;

/* PKCS#8 (RFC 5958) in the arena; or, where the wish is so, EnvelopedData around SignedData
 * around an asymmetric key package (RFC 7030 4.4.2), signed by the issuer. */
enum err keygen_deliver(struct arena *arena, EVP_PKEY *key, const struct keygen_wish *wish,
                        const struct issuer *issuer, struct bytes *ret_private) MUST_CHECK;
