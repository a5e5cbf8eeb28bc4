/*
 * Sealing secrets that rest in the registry: AES-256-GCM under a key that is there too, but
 * enciphered for an RSA key outside (a file, or behind PKCS#11). A sealer is immutable once made
 * and works for many threads; its maker frees it.
 */
#pragma once

#include "base/buf.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/secret.h"
#include "pki/signer.h"

enum { SEAL_MAX_WRAPPED_BYTES = 512, SEAL_MAX_PLAIN_BYTES = 256, SEAL_OVERHEAD_BYTES = 28 };

struct sealer;

/* A new sealing key, enciphered for the key of s (RSAES-OAEP, RFC 8017 7.1). ERR_INVALID: that is
 * no RSA key of 2048 to 4096 bits. ret is initialised by the caller. */
enum err seal_key_make(const struct signer *s, struct buf *ret) MUST_CHECK;

/* The sealer of a sealing key. ERR_INVALID: it was enciphered for another key. ERR_UNAVAILABLE: the
 * key does not decipher now. */
enum err sealer_new(const struct signer *s, struct bytes wrapped,
                    struct sealer **ret_sealer) MUST_CHECK;
void sealer_free(struct sealer *s);
DEFINE_CLEANUP(struct sealer *, sealer_free);

/* 32 bytes that only who has this sealer can make, the same ones for the same label. */
enum err seal_derive(const struct sealer *s, const char *label,
                     uint8_t ret[SHA256_BYTES]) MUST_CHECK;

/* place: what the secret is and whose; it opens nowhere else. ret is initialised by the caller, and
 * holds a secret where it is opened. ERR_INVALID: the bytes were not sealed for that place. */
enum err seal_close(const struct sealer *s, const char *place, struct bytes plain,
                    struct buf *ret) MUST_CHECK;
enum err seal_open(const struct sealer *s, const char *place, struct bytes sealed,
                   struct buf *ret) MUST_CHECK;
