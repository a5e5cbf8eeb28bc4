/* What is made for a TPM, undone with the private halves of its keys. */
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

#include "pki/key.h"
#include "pki/tpm_wire.h"
#include "suite.h"
#include "tpm_golden.h"

enum { EK_ATTRIBUTES = 0x000300b2, SEQUENCE_BYTES = 96 };

/* A storage key with its private half. */
struct pair {
    EVP_PKEY *key;
    struct tpm_public public;
    size_t digest_bytes;
};

/* The kinds of storage keys there are. */
static const struct kind {
    enum key_kind kind;
    uint16_t name_alg;
    uint16_t aes_bits;
    uint16_t curve;
    uint16_t rsa_bits;
} kinds[] = {
    {KEY_RSA2048, TPM_ALG_SHA256, 128, 0, 2048},
    {KEY_RSA3072, TPM_ALG_SHA384, 256, 0, 3072},
    {KEY_P256, TPM_ALG_SHA256, 128, TPM_CURVE_P256, 0},
    {KEY_P384, TPM_ALG_SHA384, 256, TPM_CURVE_P384, 0},
    {KEY_P256, TPM_ALG_SHA512, 256, TPM_CURVE_P256, 0},
};

static void number_put(struct tpm_writer *w, EVP_PKEY *key, const char *which, int len)
{
    uint8_t out[TPM_MAX_RSA_BYTES];
    BIGNUM *n = NULL;
    ck_assert_int_eq(EVP_PKEY_get_bn_param(key, which, &n), 1);
    ck_assert_int_eq(BN_bn2binpad(n, out, len), len);
    BN_free(n);
    tpm_put_2b(w, bytes_of(out, (size_t)len));
}

static struct pair pair_make(const struct kind *k)
{
    struct pair p = {.digest_bytes = tpm_digest_bytes(k->name_alg)};
    struct tpm_writer w = tpm_write(&arena, TPM_MAX_PUBLIC_BYTES);
    struct bytes area = {0};
    const char *why = "";
    ck_assert_int_eq(key_generate(k->kind, &p.key), ERR_OK);
    tpm_put_u16(&w, k->rsa_bits ? TPM_ALG_RSA : TPM_ALG_ECC);
    tpm_put_u16(&w, k->name_alg);
    tpm_put_u32(&w, EK_ATTRIBUTES);
    tpm_put_u16(&w, 0);
    tpm_put_u16(&w, TPM_ALG_AES);
    tpm_put_u16(&w, k->aes_bits);
    tpm_put_u16(&w, TPM_ALG_CFB);
    tpm_put_u16(&w, TPM_ALG_NULL);
    if (k->rsa_bits) {
        tpm_put_u16(&w, k->rsa_bits);
        tpm_put_u32(&w, 0);
        number_put(&w, p.key, OSSL_PKEY_PARAM_RSA_N, k->rsa_bits / 8);
    } else {
        tpm_put_u16(&w, k->curve);
        tpm_put_u16(&w, TPM_ALG_NULL);
        number_put(&w, p.key, OSSL_PKEY_PARAM_EC_PUB_X, k->curve == TPM_CURVE_P256 ? 32 : 48);
        number_put(&w, p.key, OSSL_PKEY_PARAM_EC_PUB_Y, k->curve == TPM_CURVE_P256 ? 32 : 48);
    }
    ck_assert_int_eq(tpm_written(&w, &area), ERR_OK);
    ck_assert_msg(tpm_public_decode(area, &p.public, &why) == ERR_OK, "%s", why);
    return p;
}

/* The seed in what a TPM2B_ENCRYPTED_SECRET holds, for an RSA key. */
static struct bytes seed_decrypt(const struct pair *p, const char *label, struct bytes ciphertext)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(p->key, NULL);
    uint8_t *seed = arena_alloc(&arena, TPM_MAX_RSA_BYTES);
    size_t len = TPM_MAX_RSA_BYTES;
    const EVP_MD *md = tpm_digest(p->public.name_alg);
    ck_assert_int_eq(EVP_PKEY_decrypt_init(ctx), 1);
    ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING), 1);
    ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md), 1);
    ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md), 1);
    int label_len = (int)strlen(label) + 1;
    ck_assert_int_eq(
        EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, OPENSSL_memdup(label, (size_t)label_len), label_len),
        1);
    ck_assert_int_eq(EVP_PKEY_decrypt(ctx, seed, &len, ciphertext.data, ciphertext.len), 1);
    EVP_PKEY_CTX_free(ctx);
    return bytes_of(seed, len);
}

/* The same for an ECC key: the ephemeral point, then one-step key derivation. */
static struct bytes seed_agree(const struct pair *p, const char *label, struct bytes point)
{
    struct tpm_reader r = tpm_read(point);
    struct tpm_public ephemeral = p->public;
    EVP_PKEY *theirs = NULL;
    uint8_t *z = arena_alloc(&arena, TPM_MAX_ECC_BYTES);
    size_t len = TPM_MAX_ECC_BYTES;
    struct bytes seed = {0};
    ephemeral.x = tpm_take_2b(&r, TPM_MAX_ECC_BYTES);
    ephemeral.y = tpm_take_2b(&r, TPM_MAX_ECC_BYTES);
    ck_assert(tpm_ended(&r) && ephemeral.x.len == p->public.x.len &&
              ephemeral.y.len == p->public.y.len);
    ck_assert_int_eq(tpm_key(&ephemeral, &theirs), ERR_OK);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(p->key, NULL);
    ck_assert_int_eq(EVP_PKEY_derive_init(ctx), 1);
    ck_assert_int_eq(EVP_PKEY_derive_set_peer(ctx, theirs), 1);
    ck_assert_int_eq(EVP_PKEY_derive(ctx, z, &len), 1);
    ck_assert_int_eq(tpm_kdfe(&arena, p->public.name_alg, bytes_of(z, len), label, ephemeral.x,
                              p->public.x, p->digest_bytes, &seed),
                     ERR_OK);
    EVP_PKEY_CTX_free(ctx);
    key_free(theirs);
    return seed;
}

static struct bytes cfb_decrypt(struct bytes key, struct bytes in)
{
    static const uint8_t iv[16];
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t *out = arena_alloc(&arena, in.len + 16);
    int len = 0;
    const EVP_CIPHER *cipher = key.len == 16 ? EVP_aes_128_cfb128() : EVP_aes_256_cfb128();
    ck_assert_int_eq((int)key.len, EVP_CIPHER_get_key_length(cipher));
    ck_assert_int_eq(EVP_DecryptInit_ex2(ctx, cipher, key.data, iv, NULL), 1);
    ck_assert_int_eq(EVP_DecryptUpdate(ctx, out, &len, in.data, (int)in.len), 1);
    EVP_CIPHER_CTX_free(ctx);
    return bytes_of(out, (size_t)len);
}

/* What is under an outer wrapper whose HMAC holds; wrapped and secret without their sizes. */
static struct bytes unwrap(const struct pair *p, const char *label, struct bytes name,
                           struct bytes wrapped, struct bytes secret)
{
    const struct bytes none = {0};
    uint16_t alg = p->public.name_alg;
    struct tpm_reader r = tpm_read(wrapped);
    struct bytes mac = tpm_take_2b(&r, TPM_MAX_DIGEST_BYTES), encrypted = r.rest;
    struct bytes key = {0}, mac_key = {0}, expected = {0}, in = {0};
    struct bytes seed = p->public.type == TPM_ALG_RSA ? seed_decrypt(p, label, secret)
                                                      : seed_agree(p, label, secret);
    ck_assert(!r.broken);
    ck_assert_uint_eq(seed.len, p->digest_bytes);
    ck_assert_int_eq(
        tpm_kdfa(&arena, alg, seed, "STORAGE", name, none, p->public.sym_bits / 8, &key), ERR_OK);
    ck_assert_int_eq(
        tpm_kdfa(&arena, alg, seed, "INTEGRITY", none, none, p->digest_bytes, &mac_key), ERR_OK);
    struct tpm_writer w = tpm_write(&arena, encrypted.len + name.len);
    tpm_put(&w, encrypted);
    tpm_put(&w, name);
    ck_assert_int_eq(tpm_written(&w, &in), ERR_OK);
    ck_assert_int_eq(tpm_hmac(&arena, alg, mac_key, in, &expected), ERR_OK);
    ck_assert(bytes_equal(mac, expected));
    return cfb_decrypt(key, encrypted);
}

/* A TPM2B that is all there is, without its size. */
static struct bytes only(struct bytes sized)
{
    struct tpm_reader r = tpm_read(sized);
    struct bytes content = tpm_take_2b(&r, TPM_MAX_PUBLIC_BYTES);
    ck_assert(tpm_ended(&r));
    return content;
}

START_TEST(the_derivations_give_the_known_answers)
{
    static const struct {
        const char *name;
        uint16_t alg;
    } hashes[] = {
        {"sha256", TPM_ALG_SHA256}, {"sha384", TPM_ALG_SHA384}, {"sha512", TPM_ALG_SHA512}};
    static const struct {
        const char *name, *label;
        bool e;          /* KDFe */
        size_t key_len;  /* 0: the digest's */
        size_t u, u_len; /* within the bytes 0 to 95 */
        size_t v, v_len;
    } rows[] = {
        {"storage", "STORAGE", false, 0, 0, 34, 0, 0},
        {"integrity", "INTEGRITY", false, 0, 0, 0, 0, 0},
        {"both", "X", false, 0, 0, 7, 7, 13},
        {"long", "LONG", false, 0, 0, 7, 7, 13},
        {"identity", "IDENTITY", true, 32, 32, 32, 64, 32},
        {"duplicate", "DUPLICATE", true, 48, 0, 48, 48, 48},
        {"long", "LONG", true, 48, 0, 48, 48, 48},
    };
    uint8_t sequence[SEQUENCE_BYTES];
    begin();
    for (size_t i = 0; i < sizeof(sequence); i++)
        sequence[i] = (uint8_t)i;
    for (size_t i = 0; i < ARRAY_LEN(hashes) * ARRAY_LEN(rows); i++) {
        uint16_t alg = hashes[i / ARRAY_LEN(rows)].alg;
        size_t k = i % ARRAY_LEN(rows);
        struct bytes got = {0}, u = bytes_of(sequence + rows[k].u, rows[k].u_len);
        struct bytes v = bytes_of(sequence + rows[k].v, rows[k].v_len);
        struct bytes key =
            bytes_of(sequence, rows[k].key_len ? rows[k].key_len : tpm_digest_bytes(alg));
        const char *name = arena_printf(&arena, "%s.%s.%s", rows[k].e ? "kdfe" : "kdfa",
                                        hashes[i / ARRAY_LEN(rows)].name, rows[k].name);
        struct bytes expected = golden(name);
        enum err e = rows[k].e
                         ? tpm_kdfe(&arena, alg, key, rows[k].label, u, v, expected.len, &got)
                         : tpm_kdfa(&arena, alg, key, rows[k].label, u, v, expected.len, &got);
        ck_assert_int_eq(e, ERR_OK);
        ck_assert_msg(bytes_equal(got, expected), "%s", name);
    }
    end();
}
END_TEST

START_TEST(a_credential_opens_with_the_private_key_for_its_name)
{
    uint8_t secret[TPM_MAX_DIGEST_BYTES];
    begin();
    struct tpm_public named = golden_public("srk-rsa");
    ck_assert_int_eq(secret_random(secret, sizeof(secret)), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct pair ek = pair_make(&kinds[i]);
        for (size_t len = 1; len <= ek.digest_bytes; len += 15) {
            struct tpm_credential c = {0};
            const char *why = "";
            struct bytes in = bytes_of(secret, len);
            enum err e = tpm_make_credential(&arena, &ek.public, tpm_name(&named), in, &c, &why);
            ck_assert_msg(e == ERR_OK, "%s", why);
            struct bytes plain = unwrap(&ek, "IDENTITY", tpm_name(&named), only(c.id_object),
                                        only(c.encrypted_secret));
            ck_assert(bytes_equal(only(plain), in));
        }
        key_free(ek.key);
    }
    end();
}
END_TEST

START_TEST(a_secret_that_no_tpm_would_take_is_refused)
{
    const uint8_t secret[TPM_MAX_DIGEST_BYTES + 1] = {0};
    begin();
    struct tpm_public ek = golden_public("ek-rsa");
    struct tpm_public ak = golden_public("ak-ecdsa");
    static const size_t lengths[] = {0, 33, 65};
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        struct tpm_credential c = {0};
        const char *why = NULL;
        struct bytes in = bytes_of(secret, lengths[i]);
        ck_assert_int_eq(tpm_make_credential(&arena, &ek, tpm_name(&ak), in, &c, &why),
                         ERR_INVALID);
        ck_assert_ptr_nonnull(strstr(why, "does not fit"));
        ck_assert_int_eq(
            tpm_make_credential(&arena, &ak, tpm_name(&ek), bytes_of(secret, 16), &c, &why),
            ERR_INVALID);
        ck_assert_ptr_nonnull(strstr(why, "no storage key"));
    }
    end();
}
END_TEST

/* TPMT_PUBLIC of the HMAC key: its fields; returns its unique. */
static struct bytes hmac_public_check(struct bytes area)
{
    static const uint8_t head[] = {0x00, 0x08, 0x00, 0x0b, 0x00, 0x04, 0x04,
                                   0x40, 0x00, 0x00, 0x00, 0x05, 0x00, 0x0b};
    struct tpm_reader r = tpm_read(area);
    struct bytes got = tpm_take(&r, sizeof(head));
    ck_assert(bytes_equal(got, bytes_of(head, sizeof(head))));
    struct bytes unique = tpm_take_2b(&r, SHA256_BYTES);
    ck_assert(tpm_ended(&r) && unique.len == SHA256_BYTES);
    return unique;
}

static struct bytes digest_of(struct bytes a, struct bytes b)
{
    struct bytes in = {0};
    uint8_t *digest = arena_alloc(&arena, SHA256_BYTES);
    struct tpm_writer w = tpm_write(&arena, a.len + b.len);
    tpm_put(&w, a);
    tpm_put(&w, b);
    ck_assert_int_eq(tpm_written(&w, &in), ERR_OK);
    ck_assert_int_eq(digest_sha256(in, digest), ERR_OK);
    return bytes_of(digest, SHA256_BYTES);
}

/* What TPM2_Import and TPM2_Load look at, down to the key. */
static struct bytes hmac_key_open(struct bytes inner, struct bytes name, struct bytes unique)
{
    struct tpm_reader r = tpm_read(inner);
    struct bytes digest = tpm_take_2b(&r, SHA256_BYTES);
    ck_assert(bytes_equal(digest, digest_of(r.rest, name)));
    struct tpm_reader s = tpm_read(only(r.rest));
    ck_assert_uint_eq(tpm_take_u16(&s), 0x0008);
    ck_assert_uint_eq(tpm_take_2b(&s, 0).len, 0);
    struct bytes obfuscation = tpm_take_2b(&s, SHA256_BYTES);
    struct bytes key = tpm_take_2b(&s, TPM_HMAC_KEY_BYTES);
    ck_assert(tpm_ended(&s) && obfuscation.len == SHA256_BYTES);
    ck_assert(bytes_equal(unique, digest_of(obfuscation, key)));
    return key;
}

static void activation_undo(const struct pair *ek, const struct pair *srk, struct bytes blob,
                            struct bytes expected)
{
    enum { PARTS = 6 };
    struct bytes parts[PARTS];
    struct tpm_reader r = tpm_read(blob);
    for (size_t i = 0; i < PARTS; i++)
        parts[i] = tpm_take_2b(&r, TPM_MAX_PUBLIC_BYTES);
    ck_assert(tpm_ended(&r) && parts[5].len == 0);
    struct bytes inner_key =
        only(unwrap(ek, "IDENTITY", tpm_name(&srk->public), parts[0], parts[1]));
    ck_assert_uint_eq(inner_key.len, 16);
    struct bytes unique = hmac_public_check(parts[4]);
    uint8_t name[2 + SHA256_BYTES] = {0x00, 0x0b};
    ck_assert_int_eq(digest_sha256(parts[4], name + 2), ERR_OK);
    struct bytes outer = unwrap(srk, "DUPLICATE", bytes_of(name, sizeof(name)), parts[2], parts[3]);
    struct bytes inner = cfb_decrypt(inner_key, outer);
    ck_assert(bytes_equal(hmac_key_open(inner, bytes_of(name, sizeof(name)), unique), expected));
}

START_TEST(an_activation_blob_gives_the_key_back_and_is_never_the_same)
{
    uint8_t secret[TPM_HMAC_KEY_BYTES];
    begin();
    ck_assert_int_eq(secret_random(secret, sizeof(secret)), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct pair ek = pair_make(&kinds[i]);
        struct pair srk = pair_make(&kinds[(i + 2) % ARRAY_LEN(kinds)]);
        struct bytes blob = {0}, again = {0};
        const char *why = "";
        enum err e = tpm_activation_blob(&arena, &ek.public, &srk.public, secret, &blob, &why);
        ck_assert_msg(e == ERR_OK, "%s", why);
        activation_undo(&ek, &srk, blob, bytes_of(secret, sizeof(secret)));
        e = tpm_activation_blob(&arena, &ek.public, &srk.public, secret, &again, &why);
        ck_assert_int_eq(e, ERR_OK);
        ck_assert(again.len == blob.len && !bytes_equal(again, blob));
        ck_assert_ptr_null(memmem(blob.data, blob.len, secret, sizeof(secret)));
        key_free(ek.key);
        key_free(srk.key);
    }
    end();
}
END_TEST

START_TEST(no_key_goes_where_it_could_leave_a_tpm)
{
    static const char *const no_parents[] = {"ak-ecdsa", "key-rsa", "movable"};
    const uint8_t secret[TPM_HMAC_KEY_BYTES] = {1};
    begin();
    struct tpm_public good = golden_public("srk-p256");
    for (size_t i = 0; i < ARRAY_LEN(no_parents); i++) {
        struct tpm_public bad = golden_public(no_parents[i]);
        struct bytes blob = {0};
        const char *why = NULL;
        ck_assert_int_eq(tpm_activation_blob(&arena, &good, &bad, secret, &blob, &why),
                         ERR_INVALID);
        ck_assert_ptr_nonnull(why);
        why = NULL;
        ck_assert_int_eq(tpm_activation_blob(&arena, &bad, &good, secret, &blob, &why),
                         ERR_INVALID);
        ck_assert(why && blob.len == 0);
    }
    end();
}
END_TEST

START_TEST(one_arena_is_enough_for_the_largest_blob)
{
    static const struct kind largest = {KEY_RSA4096, TPM_ALG_SHA512, 256, 0, 4096};
    const uint8_t secret[TPM_HMAC_KEY_BYTES] = {1};
    struct arena small;
    struct bytes blob = {0};
    const char *why = "";
    begin();
    arena_init(&small, TPM_ARENA_BYTES);
    struct pair ek = pair_make(&largest);
    enum err e = tpm_activation_blob(&small, &ek.public, &ek.public, secret, &blob, &why);
    ck_assert_msg(e == ERR_OK, "%d %s", e, why);
    activation_undo(&ek, &ek, blob, bytes_of(secret, sizeof(secret)));
    key_free(ek.key);
    arena_done(&small);
    end();
}
END_TEST

START_TEST(without_memory_nothing_is_made)
{
    const uint8_t secret[TPM_HMAC_KEY_BYTES] = {1};
    enum err e = ERR_NO_MEMORY;
    begin();
    struct tpm_public ek = golden_public("ek-p256");
    struct tpm_public srk = golden_public("srk-rsa");
    for (size_t room = 16; e == ERR_NO_MEMORY && room < TPM_ARENA_BYTES; room += 64) {
        struct arena small;
        struct bytes blob = {0};
        const char *why = NULL;
        arena_init(&small, room);
        e = tpm_activation_blob(&small, &ek, &srk, secret, &blob, &why);
        ck_assert(e == ERR_OK || (e == ERR_NO_MEMORY && blob.len == 0 && !why));
        arena_done(&small);
    }
    ck_assert_int_eq(e, ERR_OK);
    end();
}
END_TEST

SUITE("tpm_make", the_derivations_give_the_known_answers,
      a_credential_opens_with_the_private_key_for_its_name,
      a_secret_that_no_tpm_would_take_is_refused,
      an_activation_blob_gives_the_key_back_and_is_never_the_same,
      no_key_goes_where_it_could_leave_a_tpm, one_arena_is_enough_for_the_largest_blob,
      without_memory_nothing_is_made)
