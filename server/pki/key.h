/*
 * Keys: making, loading, naming. Owner: whoever called; free with key_free.
 * Threads: any; a loaded key may sign from many threads at once.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/secret.h"
#include "model/profile.h"

void key_free(EVP_PKEY *key);
DEFINE_CLEANUP(EVP_PKEY *, key_free);

/* A new private key of one kind. */
enum err key_generate(enum key_kind kind, EVP_PKEY **ret_key) MUST_CHECK;

/* PKCS#8 PEM of a private key; with a passphrase encrypted, AES-256 under PBKDF2 (RFC 8018).
 * ret is initialised by the caller and secret. */
enum err key_encode_private(EVP_PKEY *key, const char *passphrase, struct buf *ret) MUST_CHECK;

/* A private key from a PEM file. passphrase NULL: an encrypted one is refused. ERR_DENIED when the
 * file's mode lets others read it; ERR_INVALID also for another passphrase. */
enum err key_load_private(const char *path, const char *passphrase, EVP_PKEY **ret_key) MUST_CHECK;

/* A public key (SubjectPublicKeyInfo) from PEM text. ERR_INVALID: it is none. */
enum err key_parse_public(struct bytes pem, EVP_PKEY **ret_key) MUST_CHECK;

/* Which kind a key is; 0 for every kind that Muster does not issue for (RSA below 2048 or above
 * 4096 bits, an exponent below 65537 or above 32 bits or even, other curves, DSA). RSA is
 * classed by size: below 3072 bits RSA2048, below 4096 RSA3072, 4096 RSA4096. */
enum key_kind key_kind_of(EVP_PKEY *key);

enum { KEY_P256_BYTES = 32 };

/* A public key of P-256 by its coordinates. ERR_INVALID: no point of the curve. */
enum err key_decode_p256_point(const uint8_t x[KEY_P256_BYTES], const uint8_t y[KEY_P256_BYTES],
                               EVP_PKEY **ret_key) MUST_CHECK;

/* DER SubjectPublicKeyInfo in the one form a key has here: named curve, uncompressed point, RSA
 * with NULL parameters. ret is initialised by the caller. */
enum err key_encode_canonical(EVP_PKEY *key, struct buf *ret) MUST_CHECK;

/* SHA-256 of that: the registry's name of a key, however a certificate spells it. */
enum err key_fingerprint(EVP_PKEY *key, uint8_t ret_digest[SHA256_BYTES]) MUST_CHECK;

/* Whether a SubjectPublicKeyInfo stands as key_encode_canonical writes P-256 and P-384. Says
 * nothing of the point, which decoding the key has checked. */
bool key_spki_is_canonical(struct bytes spki);
