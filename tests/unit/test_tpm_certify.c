/* What came of TPM2_Certify. */
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

#include "pki/key.h"
#include "pki/tpm_wire.h"
#include "suite.h"
#include "tpm_golden.h"

/* A certification as swtpm made it: of key by ak. */
static struct tpm_certification certification(const char *key, const char *ak)
{
    const char *both = arena_printf(&arena, "%s.%s", key, ak);
    struct tpm_public *p = arena_alloc(&arena, 2 * sizeof(*p));
    p[0] = golden_public(strcmp(ak, "free") == 0 ? ak : arena_printf(&arena, "ak-%s", ak));
    p[1] = golden_public(key);
    return (struct tpm_certification){.ak = &p[0],
                                      .key = &p[1],
                                      .attest = golden_of(both, "attest"),
                                      .signature = golden_of(both, "signature"),
                                      .nonce = golden("nonce")};
}

static enum err certify_try(const struct tpm_certification *c, const char **ret_why)
{
    uint8_t fingerprint[SHA256_BYTES];
    *ret_why = "";
    enum err e = tpm_certify_verify(c, fingerprint, ret_why);
    ck_assert(e == ERR_OK || (e == ERR_INVALID && **ret_why));
    return e;
}

static void certify_refused(const struct tpm_certification *c, const char *expected)
{
    const char *why = NULL;
    ck_assert_msg(certify_try(c, &why) == ERR_INVALID, "%s", expected);
    ck_assert_msg(strstr(why, expected), "%s, not: %s", expected, why);
}

static const char *const schemes[] = {"ecdsa", "rsassa", "rsapss"};

START_TEST(a_certification_by_each_scheme_gives_the_keys_fingerprint)
{
    begin();
    static const char *const certified[] = {"key-p256", "key-rsa"};
    for (size_t i = 0; i < 2 * ARRAY_LEN(schemes); i++) {
        uint8_t fingerprint[SHA256_BYTES];
        const char *why = "";
        struct tpm_certification c = certification(certified[i % 2], schemes[i / 2]);
        ck_assert_msg(tpm_certify_verify(&c, fingerprint, &why) == ERR_OK, "%s", why);
        ck_assert(bytes_equal(bytes_of(fingerprint, sizeof(fingerprint)),
                              golden_of(certified[i % 2], "spki")));
    }
    end();
}
END_TEST

START_TEST(a_certification_cut_or_changed_anywhere_is_refused)
{
    begin();
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        const char *why = NULL;
        struct tpm_certification good = certification("key-p256", schemes[i]), c = good;
        for (size_t at = 0; at < good.attest.len; at++) {
            c.attest = bytes_of(good.attest.data, at);
            ck_assert_int_eq(certify_try(&c, &why), ERR_INVALID);
            uint8_t *copy = copy_of(good.attest);
            copy[at] ^= 0x40;
            c.attest = bytes_of(copy, good.attest.len);
            ck_assert_int_eq(certify_try(&c, &why), ERR_INVALID);
        }
        c = good;
        for (size_t at = 0; at < good.signature.len; at++) {
            c.signature = bytes_of(good.signature.data, at);
            ck_assert_int_eq(certify_try(&c, &why), ERR_INVALID);
            uint8_t *copy = copy_of(good.signature);
            copy[at] ^= 0x40;
            c.signature = bytes_of(copy, good.signature.len);
            ck_assert_int_eq(certify_try(&c, &why), ERR_INVALID);
        }
        c = good;
        c.attest = bytes_of(copy_of(good.attest), good.attest.len + 1);
        certify_refused(&c, "something follows the attestation");
        c = good;
        c.signature = bytes_of(copy_of(good.signature), good.signature.len + 1);
        certify_refused(&c, "something follows it");
    }
    end();
}
END_TEST

START_TEST(a_certification_proves_nothing_else)
{
    begin();
    struct tpm_public p384 = golden_public("ek-p384");
    struct tpm_certification good = certification("key-p256", "ecdsa"), c = good;
    c.nonce = bytes_text("another nonce, of 32 bytes too..");
    certify_refused(&c, "another nonce");
    c.nonce = bytes_of(good.nonce.data, good.nonce.len - 1);
    certify_refused(&c, "another nonce");
    c = good;
    c.key = certification("key-rsa", "ecdsa").key;
    certify_refused(&c, "another key");
    c = good;
    c.ak = certification("key-p256", "rsassa").ak;
    certify_refused(&c, "not of the attestation key's scheme");
    c.ak = &p384;
    certify_refused(&c, "no attestation key");
    c = certification("key-p256", "rsapss");
    c.ak = certification("key-p256", "rsassa").ak;
    certify_refused(&c, "not of the attestation key's scheme");
    c = good;
    c.signature = certification("key-rsa", "ecdsa").signature;
    certify_refused(&c, "did not make the signature");
    c = certification("movable", "ecdsa");
    certify_refused(&c, "outside its TPM");
    c = certification("key-p256", "free");
    certify_refused(&c, "no attestation key");
    c = certification("key-p256", "ecdsa");
    c.attest = golden("key-p256.empty.attest");
    c.signature = golden("key-p256.empty.signature");
    c.nonce = (struct bytes){0};
    certify_refused(&c, "another nonce");
    end();
}
END_TEST

START_TEST(what_is_no_certification_is_told)
{
    begin();
    struct tpm_certification c = certification("key-p256", "ecdsa");
    uint8_t *copy = copy_of(c.attest);
    c.attest = bytes_of(copy, c.attest.len);
    copy[3] = 0x48;
    certify_refused(&c, "does not begin");
    copy[3] = 0x47;
    copy[5] = 0x18; /* a quote */
    certify_refused(&c, "none of TPM2_Certify");
    c = certification("key-p256", "ecdsa");
    copy = copy_of(c.signature);
    c.signature = bytes_of(copy, c.signature.len);
    copy[1] = 0x1a;
    certify_refused(&c, "signature's scheme");
    copy[1] = 0x18;
    copy[3] = 0x04;
    certify_refused(&c, "signature's digest");
    end();
}
END_TEST

/* An attestation by nobody, with so long a name of the signer and nonce. */
static struct bytes attest_make(size_t signer_len, size_t nonce_len, size_t behind_len)
{
    struct bytes zeros = bytes_of(arena_alloc(&arena, 4096), 4096), out = {0};
    struct tpm_writer w = tpm_write(&arena, 4096);
    tpm_put_u32(&w, 0xff544347);
    tpm_put_u16(&w, 0x8017);
    tpm_put_2b(&w, bytes_of(zeros.data, signer_len));
    tpm_put_2b(&w, bytes_of(zeros.data, nonce_len));
    tpm_put(&w, bytes_of(zeros.data, 8 + 4 + 4 + 1 + 8));
    tpm_put_2b(&w, bytes_of(zeros.data, 34));
    tpm_put_2b(&w, bytes_of(zeros.data, 34));
    tpm_put(&w, bytes_of(zeros.data, behind_len));
    ck_assert_int_eq(tpm_written(&w, &out), ERR_OK);
    return out;
}

START_TEST(no_part_is_longer_than_a_tpm_would_make_it)
{
    begin();
    struct tpm_attest a;
    struct tpm_signature s;
    const char *why = NULL;
    uint8_t signature[TPM_MAX_SIGNATURE_BYTES + 1] = {0x00, 0x18, 0x00, 0x0b, 0x00, 0x31};
    ck_assert_int_eq(tpm_attest_decode(attest_make(66, 66, 0), &a, &why), ERR_OK);
    ck_assert_int_eq(tpm_attest_decode(attest_make(67, 66, 0), &a, &why), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(why, "too long"));
    ck_assert_int_eq(tpm_attest_decode(attest_make(66, 67, 0), &a, &why), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(why, "too long"));
    ck_assert_int_eq(tpm_attest_decode(attest_make(66, 66, 400), &a, &why), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(why, "longer than any"));
    ck_assert_int_eq(tpm_signature_decode(bytes_of(signature, 6 + 49 + 2), &s, &why), ERR_INVALID);
    ck_assert_int_eq(tpm_signature_decode(bytes_of(signature, sizeof(signature)), &s, &why),
                     ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(why, "longer than any"));
    end();
}
END_TEST

/* A golden attestation key with a key of ours in place of its own, which is what it ends with. */
static struct tpm_public ak_of(EVP_PKEY *key, const char *name, uint16_t hash)
{
    enum { AT_HASH = 14 };
    struct tpm_public p, was = golden_public(name);
    uint8_t *raw = copy_of(was.raw);
    BIGNUM *n = NULL;
    const char *why = "";
    raw[AT_HASH + 1] = (uint8_t)hash;
    if (was.type == TPM_ALG_RSA) {
        EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &n);
        BN_bn2binpad(n, raw + was.raw.len - 256, 256);
    } else {
        EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_X, &n);
        BN_bn2binpad(n, raw + was.raw.len - 66, 32);
        EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_Y, &n);
        BN_bn2binpad(n, raw + was.raw.len - 32, 32);
    }
    BN_free(n);
    ck_assert_msg(tpm_public_decode(bytes_of(raw, was.raw.len), &p, &why) == ERR_OK, "%s", why);
    return p;
}

/* TPMT_SIGNATURE. Salts are as long as they may be, as those of TPMs outside FIPS mode are. */
static struct bytes signature_make(EVP_PKEY *key, const struct tpm_public *ak, struct bytes of)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pctx = NULL;
    uint8_t raw[TPM_MAX_RSA_BYTES], pad[32];
    size_t len = sizeof(raw);
    struct bytes out = {0};
    struct tpm_writer w = tpm_write(&arena, TPM_MAX_SIGNATURE_BYTES);
    ck_assert_int_eq(EVP_DigestSignInit(ctx, &pctx, tpm_digest(ak->scheme_hash), NULL, key), 1);
    if (ak->scheme == TPM_ALG_RSAPSS) {
        EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING);
        EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_MAX);
    }
    ck_assert_int_eq(EVP_DigestSign(ctx, raw, &len, of.data, of.len), 1);
    tpm_put_u16(&w, ak->scheme);
    tpm_put_u16(&w, ak->scheme_hash);
    if (ak->scheme == TPM_ALG_ECDSA) {
        const unsigned char *at = raw;
        ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)len);
        BN_bn2binpad(ECDSA_SIG_get0_r(sig), pad, 32);
        tpm_put_2b(&w, bytes_of(pad, 32));
        BN_bn2binpad(ECDSA_SIG_get0_s(sig), pad, 32);
        tpm_put_2b(&w, bytes_of(pad, 32));
        ECDSA_SIG_free(sig);
    } else {
        tpm_put_2b(&w, bytes_of(raw, len));
    }
    EVP_MD_CTX_free(ctx);
    ck_assert_int_eq(tpm_written(&w, &out), ERR_OK);
    return out;
}

START_TEST(other_digests_and_salts_of_other_lengths_hold)
{
    begin();
    static const struct {
        const char *ak;
        enum key_kind kind;
        uint16_t hash;
    } rows[] = {{"ak-rsapss", KEY_RSA2048, TPM_ALG_SHA256},
                {"ak-rsapss", KEY_RSA2048, TPM_ALG_SHA384},
                {"ak-rsassa", KEY_RSA2048, TPM_ALG_SHA384},
                {"ak-ecdsa", KEY_P256, TPM_ALG_SHA384}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        EVP_PKEY *key = NULL;
        const char *why = "";
        struct tpm_certification c = certification("key-p256", "ecdsa");
        ck_assert_int_eq(key_generate(rows[i].kind, &key), ERR_OK);
        struct tpm_public ak = ak_of(key, rows[i].ak, rows[i].hash);
        c.ak = &ak;
        c.signature = signature_make(key, &ak, c.attest);
        ck_assert_msg(certify_try(&c, &why) == ERR_OK, "row %zu: %s", i, why);
        c.signature = signature_make(key, &ak, c.nonce);
        certify_refused(&c, "did not make the signature");
        key_free(key);
    }
    end();
}
END_TEST

SUITE("tpm_certify", a_certification_by_each_scheme_gives_the_keys_fingerprint,
      a_certification_cut_or_changed_anywhere_is_refused, a_certification_proves_nothing_else,
      what_is_no_certification_is_told, no_part_is_longer_than_a_tpm_would_make_it,
      other_digests_and_salts_of_other_lengths_hold)
