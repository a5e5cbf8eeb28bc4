/* Signatures of JSON Web Signature (RFC 7515) and keys of JSON Web Key (RFC 7517), as far as
 * others' manifests use them. Threads: any. */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/secret.h"
#include "pki/key.h"

enum { JWS_P256_BYTES = KEY_P256_BYTES };

/* ES256 (RFC 7518 3.4): whether the key of that certificate, which must be P-256, signed it.
 * signature is r and s, 32 bytes each. */
bool jws_es256_verify(X509 *signer, struct bytes signing_input, struct bytes signature);

/* The registry's name of a P-256 key by its coordinates. ERR_INVALID: no point of the curve. */
enum err jwk_p256_fingerprint(const uint8_t x[JWS_P256_BYTES], const uint8_t y[JWS_P256_BYTES],
                              uint8_t ret_digest[SHA256_BYTES]) MUST_CHECK;
