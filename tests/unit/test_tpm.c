#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

#include "pki/key.h"
#include "pki/tpm_wire.h"
#include "suite.h"
#include "tpm_golden.h"

/* Which checks a golden key passes. */
static const struct {
    const char *name;
    bool storage, attestation, bound;
} keys[] = {
    {"ek-rsa", true, false, false},   {"ek-p256", true, false, false},
    {"ek-p384", true, false, false},  {"srk-rsa", true, false, false},
    {"srk-p256", true, false, false}, {"ak-ecdsa", false, true, true},
    {"ak-rsassa", false, true, true}, {"ak-rsapss", false, true, true},
    {"key-p256", false, false, true}, {"key-rsa", false, false, true},
    {"movable", false, false, false}, {"free", false, false, true},
};

static void check_is(enum err (*check)(const struct tpm_public *, const char **),
                     const struct tpm_public *p, bool good, const char *name)
{
    const char *why = NULL;
    ck_assert_msg(check(p, &why) == (good ? ERR_OK : ERR_INVALID), "%s: %s", name, why ? why : "");
    ck_assert_msg(good == !why, "%s", name);
}

START_TEST(what_a_tpm_made_reads_and_has_its_name_and_class)
{
    begin();
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const char *why = NULL, *name = keys[i].name;
        uint8_t spki[SHA256_BYTES];
        struct bytes in = golden(name);
        struct tpm_public p = golden_public(name), bare = {0};
        ck_assert_int_eq(tpm_public_decode(bytes_of(in.data + 2, in.len - 2), &bare, &why), ERR_OK);
        ck_assert(bytes_equal(tpm_name(&p), golden_of(name, "name")));
        ck_assert(bytes_equal(tpm_name(&bare), tpm_name(&p)) && bytes_equal(bare.raw, p.raw));
        ck_assert_int_eq(tpm_spki_fingerprint(&p, spki), ERR_OK);
        ck_assert(bytes_equal(bytes_of(spki, sizeof(spki)), golden_of(name, "spki")));
        check_is(tpm_check_storage, &p, keys[i].storage, name);
        check_is(tpm_check_attestation_key, &p, keys[i].attestation, name);
        check_is(tpm_check_bound_key, &p, keys[i].bound, name);
    }
    end();
}
END_TEST

START_TEST(the_fields_are_those_of_the_templates)
{
    begin();
    struct tpm_public rsa = golden_public("ek-rsa");
    struct tpm_public p384 = golden_public("ek-p384");
    struct tpm_public ak = golden_public("ak-ecdsa");
    ck_assert_uint_eq(rsa.type, TPM_ALG_RSA);
    ck_assert_uint_eq(rsa.name_alg, TPM_ALG_SHA256);
    ck_assert_uint_eq(rsa.attributes, 0x000300b2);
    ck_assert_uint_eq(rsa.auth_policy.len, 32);
    ck_assert_uint_eq(rsa.sym_bits, 128);
    ck_assert_uint_eq(rsa.rsa_bits, 2048);
    ck_assert_uint_eq(rsa.rsa_exponent, 65537);
    ck_assert_uint_eq(rsa.modulus.len, 256);
    ck_assert_uint_eq(p384.name_alg, TPM_ALG_SHA384);
    ck_assert_uint_eq(p384.sym_bits, 256);
    ck_assert_uint_eq(p384.curve, TPM_CURVE_P384);
    ck_assert_uint_eq(p384.y.len, 48);
    ck_assert_uint_eq(ak.scheme, TPM_ALG_ECDSA);
    ck_assert_uint_eq(ak.scheme_hash, TPM_ALG_SHA256);
    ck_assert_uint_eq(ak.sym_alg, TPM_ALG_NULL);
    end();
}
END_TEST

static enum err public_try(struct bytes in)
{
    struct tpm_public p;
    const char *why = NULL;
    enum err e = tpm_public_decode(in, &p, &why);
    ck_assert(e == ERR_OK || (e == ERR_INVALID && why));
    return e;
}

START_TEST(a_public_area_cut_anywhere_or_with_more_behind_it_is_refused)
{
    begin();
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct bytes in = golden(keys[i].name);
        for (size_t len = 0; len < in.len; len++) {
            ck_assert_int_eq(public_try(bytes_of(copy_of(bytes_of(in.data, len)), len)),
                             ERR_INVALID);
            if (len >= 2)
                ck_assert_int_eq(public_try(bytes_of(in.data + 2, len - 2)), ERR_INVALID);
        }
        uint8_t *longer = arena_alloc(&arena, in.len + 1);
        memcpy(longer, in.data, in.len);
        ck_assert_int_eq(public_try(bytes_of(longer, in.len + 1)), ERR_INVALID);
        ck_assert_int_eq(public_try(bytes_of(longer + 2, in.len - 1)), ERR_INVALID);
    }
    struct tpm_public p;
    const char *why = "";
    struct bytes huge = bytes_of(arena_alloc(&arena, 70000), 70000);
    ck_assert_int_eq(tpm_public_decode(huge, &p, &why), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(why, "longer than any"));
    end();
}
END_TEST

/* Offsets in a TPMT_PUBLIC without a policy. */
enum {
    AT_TYPE = 0,
    AT_NAME_ALG = 2,
    AT_ATTRIBUTES = 4,
    AT_POLICY = 8,
    AT_SYMMETRIC = 10,
    AT_SYM_BITS = 12,
    AT_SYM_MODE = 14,
    AT_SCHEME = 16,
    AT_BITS = 18,
    AT_CURVE = 18,
    AT_EXPONENT = 20,
    AT_MODULUS = 26,
    AT_X = 24
};

struct change {
    const char *name;
    size_t at;
    uint16_t value;
    const char *why;
};

static struct bytes changed(const struct change *c)
{
    struct bytes in = golden(c->name);
    uint8_t *copy = copy_of(bytes_of(in.data + 2, in.len - 2));
    copy[c->at] = (uint8_t)(c->value >> 8);
    copy[c->at + 1] = (uint8_t)c->value;
    return bytes_of(copy, in.len - 2);
}

START_TEST(what_no_tpm_makes_is_not_read)
{
    begin();
    static const struct change rows[] = {
        {"srk-rsa", AT_TYPE, 0x0008, "neither RSA nor ECC"},
        {"srk-rsa", AT_TYPE, TPM_ALG_ECC, "curve"},
        {"srk-p256", AT_TYPE, TPM_ALG_RSA, "cut short"},
        {"srk-rsa", AT_NAME_ALG, 0x0004, "name algorithm"},
        {"srk-rsa", AT_NAME_ALG, TPM_ALG_NULL, "name algorithm"},
        {"srk-rsa", AT_POLICY, 0x0010, "policy"},
        {"srk-rsa", AT_POLICY, 0xffff, "cut short"},
        {"srk-rsa", AT_SYMMETRIC, 0x0013, "not AES"},
        {"srk-rsa", AT_SCHEME, TPM_ALG_ECDSA, "scheme"},
        {"srk-p256", AT_SCHEME, TPM_ALG_RSASSA, "scheme"},
        {"srk-p256", AT_SCHEME, 0x001a, "scheme"},
        {"srk-rsa", AT_BITS, 1024, "modulus"},
        {"srk-rsa", AT_BITS, 2047, "modulus"},
        {"srk-rsa", AT_MODULUS - 2, 0x0000, "modulus"},
        {"srk-rsa", AT_MODULUS - 2, 0x0201, "cut short"},
        {"srk-rsa", AT_MODULUS, 0x7fff, "begins with a zero"},
        {"srk-rsa", AT_MODULUS + 254, 0x0000, "even"},
        {"srk-p256", AT_CURVE, 0x0005, "curve"},
        {"srk-p256", AT_X - 2, 0x0000, "cut short"},
        {"srk-p256", AT_X - 2, 0x0021, "cut short"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tpm_public p;
        const char *why = "";
        ck_assert_msg(tpm_public_decode(changed(&rows[i]), &p, &why) == ERR_INVALID, "row %zu", i);
        ck_assert_msg(strstr(why, rows[i].why), "row %zu: %s", i, why);
    }
    end();
}
END_TEST

/* srk-p256 with other coordinates, of these lengths. */
static struct bytes with_point(size_t x_len, size_t y_len)
{
    static const uint8_t zeros[TPM_MAX_ECC_BYTES + 1];
    struct bytes in = golden("srk-p256"), out = {0};
    struct tpm_writer w = tpm_write(&arena, TPM_MAX_PUBLIC_BYTES);
    tpm_put(&w, bytes_of(in.data + 2, AT_X - 2));
    tpm_put_2b(&w, bytes_of(zeros, x_len));
    tpm_put_2b(&w, bytes_of(zeros, y_len));
    ck_assert_int_eq(tpm_written(&w, &out), ERR_OK);
    return out;
}

START_TEST(a_point_fits_its_curve_and_a_template_is_no_key)
{
    begin();
    static const struct {
        size_t x, y;
        const char *why;
    } rows[] = {{0, 0, "empty"},      {32, 0, "empty"},     {0, 32, "empty"}, {33, 32, "too long"},
                {32, 33, "too long"}, {48, 48, "too long"}, {31, 32, NULL},   {1, 1, NULL}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tpm_public p;
        const char *why = NULL;
        enum err e = tpm_public_decode(with_point(rows[i].x, rows[i].y), &p, &why);
        ck_assert_msg(e == (rows[i].why ? ERR_INVALID : ERR_OK), "row %zu", i);
        ck_assert_msg(!rows[i].why || strstr(why, rows[i].why), "row %zu: %s", i, why);
    }
    end();
}
END_TEST

START_TEST(a_key_that_lacks_what_makes_it_safe_is_no_storage_key)
{
    begin();
    static const struct change rows[] = {
        {"srk-rsa", AT_ATTRIBUTES + 2, 0x0470, "fixedTPM"},
        {"srk-rsa", AT_ATTRIBUTES + 2, 0x0462, "fixedParent"},
        {"srk-rsa", AT_ATTRIBUTES + 2, 0x0452, "sensitiveDataOrigin"},
        {"srk-rsa", AT_ATTRIBUTES, 0x0002, "no storage key"},
        {"srk-rsa", AT_ATTRIBUTES, 0x0001, "no storage key"},
        {"srk-rsa", AT_ATTRIBUTES, 0x0007, "no storage key"},
        {"srk-rsa", AT_ATTRIBUTES, 0x0005, "no storage key"},
        {"srk-rsa", AT_SYM_BITS, 192, "cipher"},
        {"srk-rsa", AT_SYM_BITS, 0, "cipher"},
        {"srk-rsa", AT_SYM_MODE, 0x0042, "cipher"},
        {"srk-p256", AT_SCHEME, TPM_ALG_NULL, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tpm_public p;
        const char *why = NULL;
        ck_assert_int_eq(tpm_public_decode(changed(&rows[i]), &p, &why), ERR_OK);
        enum err e = tpm_check_storage(&p, &why);
        ck_assert_msg(e == (rows[i].why ? ERR_INVALID : ERR_OK), "row %zu", i);
        ck_assert_msg(!rows[i].why || strstr(why, rows[i].why), "row %zu: %s", i, why);
    }
    end();
}
END_TEST

START_TEST(a_key_of_a_scheme_that_does_not_fit_its_class_is_refused)
{
    begin();
    const char *why = NULL;
    struct tpm_public srk = golden_public("srk-rsa");
    struct tpm_public ak = golden_public("ak-ecdsa");
    srk.scheme = TPM_ALG_OAEP;
    ck_assert_int_eq(tpm_check_storage(&srk, &why), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(why, "has no scheme"));
    ak.scheme = TPM_ALG_NULL;
    ck_assert_int_eq(tpm_check_attestation_key(&ak, &why), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(why, "attestation key's scheme"));
    end();
}
END_TEST

START_TEST(short_and_odd_rsa_keys_are_refused)
{
    begin();
    uint8_t small[AT_MODULUS + 128];
    const char *why = NULL;
    struct tpm_public p;
    EVP_PKEY *key = NULL;
    struct bytes in = golden("srk-rsa");
    memcpy(small, in.data + 2, sizeof(small));
    small[AT_BITS] = 1024 >> 8;
    small[AT_MODULUS - 2] = 0;
    small[AT_MODULUS - 1] = 128;
    small[sizeof(small) - 1] |= 1;
    ck_assert_int_eq(tpm_public_decode(bytes_of(small, sizeof(small)), &p, &why), ERR_OK);
    ck_assert_int_eq(tpm_check_storage(&p, &why), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(why, "2048"));
    ck_assert_int_eq(tpm_key(&p, &key), ERR_INVALID);
    static const struct change three = {"srk-rsa", AT_EXPONENT + 2, 3, NULL};
    ck_assert_int_eq(tpm_public_decode(changed(&three), &p, &why), ERR_OK);
    ck_assert_int_eq(tpm_key(&p, &key), ERR_INVALID);
    ck_assert_ptr_null(key);
    end();
}
END_TEST

START_TEST(a_point_off_its_curve_gets_nothing)
{
    begin();
    static const struct change rows[] = {
        {"srk-p256", AT_X, 0x0102, NULL},
        {"srk-p256", AT_X, 0xffff, NULL},
        {"srk-p256", AT_X + 36, 0x0102, NULL},
    };
    struct tpm_public ek = golden_public("ek-p256");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tpm_public p;
        EVP_PKEY *key = NULL;
        struct tpm_credential c = {0};
        struct bytes blob = {0};
        const char *why = NULL;
        const uint8_t secret[TPM_HMAC_KEY_BYTES] = {1};
        ck_assert_int_eq(tpm_public_decode(changed(&rows[i]), &p, &why), ERR_OK);
        ck_assert_int_eq(tpm_key(&p, &key), ERR_INVALID);
        ck_assert_int_eq(
            tpm_make_credential(&arena, &p, tpm_name(&ek), bytes_of(secret, 16), &c, &why),
            ERR_INVALID);
        ck_assert_msg(strstr(why, "curve"), "%s", why);
        why = NULL;
        ck_assert_int_eq(tpm_activation_blob(&arena, &ek, &p, secret, &blob, &why), ERR_INVALID);
        ck_assert_msg(strstr(why, "storage root key is no point"), "%s", why);
        ck_assert_uint_eq(c.id_object.len + blob.len, 0);
    }
    end();
}
END_TEST

SUITE("tpm", what_a_tpm_made_reads_and_has_its_name_and_class,
      the_fields_are_those_of_the_templates,
      a_public_area_cut_anywhere_or_with_more_behind_it_is_refused, what_no_tpm_makes_is_not_read,
      a_key_that_lacks_what_makes_it_safe_is_no_storage_key,
      a_key_of_a_scheme_that_does_not_fit_its_class_is_refused, short_and_odd_rsa_keys_are_refused,
      a_point_off_its_curve_gets_nothing, a_point_fits_its_curve_and_a_template_is_no_key)
