/*
 * A certificate for a device's P-256 or P-384 key, encoded by hand: the same bytes that issuer.c
 * makes with OpenSSL's X509, in a fraction of the time. For pki/ only.
 * A struct tbs_issuer belongs to its issuer and is immutable once made. Threads: any.
 */
#pragma once

#include <openssl/types.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "model/profile.h"
#include "pki/signed.h"

/* What is the same in every certificate of an issuer. */
struct tbs_issuer {
    struct buf name;             /* its subject */
    struct buf authority_key_id; /* the whole extension */
    struct signed_algorithm algorithm;
};

/* ERR_NOT_FOUND when certificates of this issuer are not made here. */
enum err tbs_issuer_init(struct tbs_issuer *t, X509 *cert, EVP_PKEY *key) MUST_CHECK;
void tbs_issuer_done(struct tbs_issuer *t);

/* What differs; all borrowed. */
struct tbs {
    const uint8_t *serial_number; /* 20 bytes, positive */
    int64_t not_before_s;
    int64_t not_after_s;
    struct bytes subject_der;
    struct bytes spki;    /* canonical: key_encode_canonical */
    struct bytes san_der; /* len 0: none */
    const struct cert_profile *profile;
};

/* Encodes and signs with the issuer's key. ERR_NOT_FOUND for what the generic route must do: an
 * issuer or an address of unusual form. */
enum err tbs_sign(const struct tbs_issuer *issuer, const struct tbs *t, EVP_PKEY *key,
                  struct arena *arena, struct bytes *ret_der) MUST_CHECK;
