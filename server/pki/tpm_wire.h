/*
 * The insides of pki/tpm: reading and writing the TPM's big-endian structures, and the key
 * derivations of part 1. For the files tpm_*.c and their tests only. Threads: any.
 */
#pragma once

#include <openssl/types.h>

#include "pki/tpm.h"

/* Reads one field after another. A read that fails marks the reader as broken and gives nothing,
 * as do all after it, so that a caller may check once, at the end. */
struct tpm_reader {
    struct bytes rest;
    bool broken;
};

static inline struct tpm_reader tpm_read(struct bytes in)
{
    return (struct tpm_reader){.rest = in};
}

struct bytes tpm_take(struct tpm_reader *r, size_t len);
uint16_t tpm_take_u16(struct tpm_reader *r);
uint32_t tpm_take_u32(struct tpm_reader *r);
/* A TPM2B of at most max_bytes, without its size. */
struct bytes tpm_take_2b(struct tpm_reader *r, size_t max_bytes);
/* Whether everything was read and nothing failed. */
bool tpm_ended(const struct tpm_reader *r);

/* Writes into memory of the arena; what does not fit, and memory that was not there, shows at
 * tpm_written. */
struct tpm_writer {
    uint8_t *data;
    size_t len;
    size_t max_bytes;
    bool overflow;
};

struct tpm_writer tpm_write(struct arena *arena, size_t max_bytes);
void tpm_put(struct tpm_writer *w, struct bytes in);
void tpm_put_u16(struct tpm_writer *w, unsigned value);
void tpm_put_u32(struct tpm_writer *w, uint32_t value);
/* A TPM2B. */
void tpm_put_2b(struct tpm_writer *w, struct bytes in);
enum err tpm_written(const struct tpm_writer *w, struct bytes *ret) MUST_CHECK;

/* Always ERR_INVALID, so that a check may `return tpm_refuse(...)`. */
static inline enum err tpm_refuse(const char **ret_why, const char *why)
{
    *ret_why = why;
    return ERR_INVALID;
}

/* NULL for a TPM_ALG_ID that is none of the three digests. */
const EVP_MD *tpm_digest(uint16_t alg);
/* 0 for an alg that is none. */
size_t tpm_digest_bytes(uint16_t alg);
/* "P-256", "P-384" and the bytes of a coordinate; NULL for any other curve. */
const char *tpm_curve(uint16_t curve, size_t *ret_bytes);

/* KDFa (part 1, 11.4.10.2), len bytes of a key. The NUL behind the label is added here. */
enum err tpm_kdfa(struct arena *arena, uint16_t alg, struct bytes key, const char *label,
                  struct bytes u, struct bytes v, size_t len, struct bytes *ret) MUST_CHECK;
/* KDFe (part 1, 11.4.10.3). */
enum err tpm_kdfe(struct arena *arena, uint16_t alg, struct bytes z, const char *label,
                  struct bytes u, struct bytes v, size_t len, struct bytes *ret) MUST_CHECK;
enum err tpm_hmac(struct arena *arena, uint16_t alg, struct bytes key, struct bytes in,
                  struct bytes *ret) MUST_CHECK;
/* AES-CFB under a zero IV; a key of 16 or 32 bytes. */
enum err tpm_aes_cfb(struct arena *arena, struct bytes key, struct bytes in,
                     struct bytes *ret) MUST_CHECK;
enum err tpm_random(struct arena *arena, size_t len, struct bytes *ret) MUST_CHECK;

/* A seed that only parent's TPM learns (part 1, annexes B.10 and C.6): the seed, and its
 * TPM2B_ENCRYPTED_SECRET. parent has passed tpm_check_storage. */
enum err tpm_seed_share(struct arena *arena, const struct tpm_public *parent, const char *label,
                        struct bytes *ret_seed, struct bytes *ret_secret) MUST_CHECK;

/* The outer wrapper (part 1, 22.4 and 24): u16(size) || 2B(HMAC) || encrypted, for the object
 * called name. The shape of TPM2B_ID_OBJECT and of a duplicate's TPM2B_PRIVATE. */
enum err tpm_outer_wrap(struct arena *arena, const struct tpm_public *parent, struct bytes seed,
                        struct bytes name, struct bytes plain,
                        struct bytes *ret_wrapped) MUST_CHECK;

/* TPMS_ATTEST of a certification (part 2, 10.12.12). */
struct tpm_attest {
    struct bytes qualified_signer;
    struct bytes extra_data;
    struct bytes name;
    struct bytes qualified_name;
};

enum err tpm_attest_decode(struct bytes in, struct tpm_attest *ret_attest,
                           const char **ret_why) MUST_CHECK;

/* TPMT_SIGNATURE; r and s for ECDSA, rsa otherwise. */
struct tpm_signature {
    uint16_t scheme;
    uint16_t hash;
    struct bytes rsa;
    struct bytes r;
    struct bytes s;
};

enum err tpm_signature_decode(struct bytes in, struct tpm_signature *ret_signature,
                              const char **ret_why) MUST_CHECK;
