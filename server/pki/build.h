/*
 * Parts of a certificate under construction, shared by issuer.c and ca.c. For pki/ only.
 * Threads: owner only.
 */
#pragma once

#include <openssl/x509v3.h>
#include <stdbool.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"

enum { BUILD_SERIAL_BYTES = 20 };

/* A random positive serial number of 159 bits. */
enum err build_serial_number(uint8_t ret_serial[BUILD_SERIAL_BYTES]) MUST_CHECK;

/* Version 3, a serial number of build_serial_number's form, the times. */
enum err build_begin_as(X509 *x, int64_t not_before_s, int64_t not_after_s,
                        const uint8_t serial[BUILD_SERIAL_BYTES]) MUST_CHECK;

/* The same with a new serial number. */
enum err build_begin(X509 *x, int64_t not_before_s, int64_t not_after_s,
                     uint8_t ret_serial[BUILD_SERIAL_BYTES]) MUST_CHECK;

/* An extension by OpenSSL's configuration text, e.g. NID_key_usage, "critical,digitalSignature".
 * issuer is the signing certificate, NULL while x signs itself. */
enum err build_extension(X509 *x, X509 *issuer, int nid, const char *value) MUST_CHECK;

/* An extension whose inner DER is given. */
enum err build_extension_der(X509 *x, int nid, bool critical, struct bytes der) MUST_CHECK;

/* SHA-256 for P-256 and RSA, SHA-384 for P-384, none for Ed25519; then the DER. */
enum err build_sign(X509 *x, EVP_PKEY *key, struct arena *arena, struct bytes *ret_der) MUST_CHECK;
