/*
 * The TPM 2.0 arithmetic of a server (TCG, Trusted Platform Module Library, parts 1 and 2): public
 * areas, credentials that one TPM alone can open, keys wrapped for import, and what a key's
 * certification proves. Pure functions of bytes; no TPM is asked. A ret_why is a constant, set
 * with ERR_INVALID. What is decoded borrows from its input; what is made is in the arena, and with
 * it what was secret on the way, so the arena's end overwrites it. Threads: any.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/secret.h"
#include "model/fault.h"
#include "pki/chain.h"

enum {
    TPM_MAX_DIGEST_BYTES = 64,
    TPM_MAX_NAME_BYTES = 2 + TPM_MAX_DIGEST_BYTES,
    TPM_MAX_RSA_BYTES = 512,
    TPM_MAX_ECC_BYTES = 48,
    TPM_MAX_NONCE_BYTES = TPM_MAX_NAME_BYTES, /* TPM2B_DATA holds no more */
    TPM_MAX_PUBLIC_BYTES = 1024,
    TPM_MAX_ATTEST_BYTES = 512,
    TPM_MAX_SIGNATURE_BYTES = 6 + TPM_MAX_RSA_BYTES,
    TPM_HMAC_KEY_BYTES = 32,
    TPM_ARENA_BYTES = 64 * 1024 /* enough to make a credential or an activation blob */
};

/* TPM_ALG_ID and TPM_ECC_CURVE, those known here. */
enum {
    TPM_ALG_RSA = 0x0001,
    TPM_ALG_AES = 0x0006,
    TPM_ALG_SHA256 = 0x000b,
    TPM_ALG_SHA384 = 0x000c,
    TPM_ALG_SHA512 = 0x000d,
    TPM_ALG_NULL = 0x0010,
    TPM_ALG_RSASSA = 0x0014,
    TPM_ALG_RSAES = 0x0015,
    TPM_ALG_RSAPSS = 0x0016,
    TPM_ALG_OAEP = 0x0017,
    TPM_ALG_ECDSA = 0x0018,
    TPM_ALG_ECDH = 0x0019,
    TPM_ALG_ECC = 0x0023,
    TPM_ALG_CFB = 0x0043,
    TPM_CURVE_P256 = 0x0003,
    TPM_CURVE_P384 = 0x0004
};

/* TPMT_PUBLIC of an RSA or ECC key. */
struct tpm_public {
    struct bytes raw; /* without the size of a TPM2B_PUBLIC */
    uint16_t type;
    uint16_t name_alg;
    uint32_t attributes;
    struct bytes auth_policy;
    uint16_t sym_alg; /* TPM_ALG_NULL: sym_bits and sym_mode are 0 */
    uint16_t sym_bits;
    uint16_t sym_mode;
    uint16_t scheme; /* TPM_ALG_NULL and TPM_ALG_RSAES: scheme_hash is 0 */
    uint16_t scheme_hash;
    uint16_t rsa_bits; /* RSA */
    uint32_t rsa_exponent;
    struct bytes modulus;
    uint16_t curve; /* ECC */
    struct bytes x;
    struct bytes y;
    size_t name_len;
    uint8_t name[TPM_MAX_NAME_BYTES]; /* nameAlg and the digest of raw: what names a key to a TPM */
};

/* TPM2B_PUBLIC or TPMT_PUBLIC, nothing behind it. */
enum err tpm_public_decode(struct bytes in, struct tpm_public *ret_public,
                           const char **ret_why) MUST_CHECK;

static inline struct bytes tpm_name(const struct tpm_public *p)
{
    return bytes_of(p->name, p->name_len);
}

/* Whether a key may be an endorsement or storage root key: one that was made in its TPM, never
 * leaves it, and opens only what the TPM itself then judges. */
enum err tpm_check_storage(const struct tpm_public *p, const char **ret_why) MUST_CHECK;

/* Whether a key signs only what its TPM says of itself. */
enum err tpm_check_attestation_key(const struct tpm_public *p, const char **ret_why) MUST_CHECK;

/* Whether a key signs, was made in its TPM and never leaves it. */
enum err tpm_check_bound_key(const struct tpm_public *p, const char **ret_why) MUST_CHECK;

/* The key, which the caller frees with key_free. ERR_INVALID for a point off its curve and for RSA
 * that key_kind_of does not know. */
enum err tpm_key(const struct tpm_public *p, EVP_PKEY **ret_key) MUST_CHECK;

/* key_fingerprint of it. */
enum err tpm_spki_fingerprint(const struct tpm_public *p,
                              uint8_t ret_digest[SHA256_BYTES]) MUST_CHECK;

/* TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET. */
struct tpm_credential {
    struct bytes id_object;
    struct bytes encrypted_secret;
};

/* TPM2_MakeCredential: only the TPM with ek opens it, and only if it also has the key called name.
 * secret has 1 byte to the size of the digest of ek's nameAlg. */
enum err tpm_make_credential(struct arena *arena, const struct tpm_public *ek, struct bytes name,
                             struct bytes secret, struct tpm_credential *ret_credential,
                             const char **ret_why) MUST_CHECK;

/* What Azure's device SDKs call authenticationKey: an HMAC-SHA256 key for TPM2_Import under srk,
 * its inner wrapping key a credential for ek and srk's name. Six parts: TPM2B_ID_OBJECT,
 * TPM2B_ENCRYPTED_SECRET, TPM2B_PRIVATE, TPM2B_ENCRYPTED_SECRET, TPM2B_PUBLIC, TPM2B_DATA. */
enum err tpm_activation_blob(struct arena *arena, const struct tpm_public *ek,
                             const struct tpm_public *srk,
                             const uint8_t hmac_key[TPM_HMAC_KEY_BYTES], struct bytes *ret_blob,
                             const char **ret_why) MUST_CHECK;

/* What came of TPM2_Certify. */
struct tpm_certification {
    const struct tpm_public *ak;  /* proved to be of a known TPM by a credential */
    const struct tpm_public *key; /* the key that is to be bound */
    struct bytes attest;          /* TPMS_ATTEST, without the size of a TPM2B_ATTEST */
    struct bytes signature;       /* TPMT_SIGNATURE */
    struct bytes nonce;           /* the qualifyingData that was asked for, not empty */
};

/* Whether ak says, for this nonce, that key is in its TPM and bound to it. The fingerprint is the
 * registry's name of the key. A restricted key passes as well: what it signs is its TPM's affair.
 */
enum err tpm_certify_verify(const struct tpm_certification *c,
                            uint8_t ret_fingerprint[SHA256_BYTES], const char **ret_why) MUST_CHECK;

/* Whether chain[0] is an endorsement key certificate (TCG EK Credential Profile) that leads to one
 * of the roots, is in date and is ek's. As chain_verify, whose faults it gives; chain.invalid
 * also when the key is another. That ek is at hand proves only a credential that was opened. */
enum err tpm_ek_cert_check(const struct trust *roots, struct arena *arena,
                           const struct bytes *chain, size_t count, const struct tpm_public *ek,
                           int64_t now_s, struct chain_verdict *ret_verdict,
                           struct fault *fault) MUST_CHECK;
