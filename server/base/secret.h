/*
 * Random bytes, digests and the care of secrets. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

enum { SHA256_BYTES = 32 };

/* Fills out with bytes fit for keys, tokens and serial numbers. */
enum err secret_random(void *out, size_t len) MUST_CHECK;

/* Overwrites memory in a way the compiler keeps. */
void secret_cleanse(void *p, size_t len);

/* Compares in time that depends on len only. */
bool secret_equal(const void *a, const void *b, size_t len);

/* SHA-256 (FIPS 180-4); how tokens are stored and certificates are named. */
enum err digest_sha256(struct bytes in, uint8_t ret_digest[SHA256_BYTES]) MUST_CHECK;

/* HMAC-SHA256 (RFC 2104). */
enum err digest_hmac_sha256(struct bytes key, struct bytes in,
                            uint8_t ret_mac[SHA256_BYTES]) MUST_CHECK;
