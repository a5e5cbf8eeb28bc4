#include <openssl/evp.h>
#include <openssl/x509.h>
#include <string.h>
#include <time.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "pki/ca.h"
#include "pki/chain.h"
#include "pki/csr.h"
#include "pki/issuer.h"
#include "pki/key.h"
#include "pki/name.h"
#include "suite.h"

enum { YEAR_S = 365 * 86400, NOW_S = 1900000000 };

static struct bytes csr_make(struct arena *a, EVP_PKEY *key, const char *cn, const EVP_MD *md)
{
    X509_REQ *rq = X509_REQ_new();
    unsigned char *der = NULL;
    X509_NAME *name = X509_NAME_new();
    if (cn)
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0);
    X509_REQ_set_subject_name(rq, name);
    X509_REQ_set_pubkey(rq, key);
    X509_REQ_sign(rq, key, md);
    int len = i2d_X509_REQ(rq, &der);
    void *copy = arena_copy(a, der, (size_t)len);
    OPENSSL_free(der);
    X509_NAME_free(name);
    X509_REQ_free(rq);
    return bytes_of(copy, (size_t)len);
}

START_TEST(every_kind_of_key_round_trips_through_a_csr)
{
    static const enum key_kind kinds[] = {KEY_P256, KEY_P384, KEY_RSA2048, KEY_ED25519};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct arena a;
        EVP_PKEY *key = NULL;
        struct csr csr = {0};
        struct fault fault = {0};
        uint8_t spki[SHA256_BYTES];
        arena_init(&a, 1 << 20);
        ck_assert_int_eq(key_generate(kinds[i], &key), ERR_OK);
        ck_assert_int_eq(key_kind_of(key), kinds[i]);
        struct bytes der = csr_make(&a, key, "SN-1", kinds[i] == KEY_ED25519 ? NULL : EVP_sha256());
        ck_assert_msg(csr_decode(&a, der, &csr, &fault) == ERR_OK, "%s", fault.detail);
        ck_assert_str_eq(csr.cn, "SN-1");
        ck_assert_int_eq(csr.kind, kinds[i]);
        ck_assert_int_eq(key_fingerprint(key, spki), ERR_OK);
        ck_assert_mem_eq(spki, csr.spki_sha256, SHA256_BYTES);
        csr_done(&csr);
        key_free(key);
        arena_done(&a);
    }
}
END_TEST

START_TEST(a_csr_that_is_broken_at_any_byte_never_passes_as_another)
{
    struct arena a;
    EVP_PKEY *key = NULL;
    arena_init(&a, 64 << 20);
    ck_assert_int_eq(key_generate(KEY_P256, &key), ERR_OK);
    struct bytes der = csr_make(&a, key, "SN-1", EVP_sha256());
    for (size_t i = 0; i < der.len; i++) {
        struct csr csr = {0};
        struct fault fault = {0};
        uint8_t *copy = arena_copy(&a, der.data, der.len);
        copy[i] ^= 0x55;
        enum err e = csr_decode(&a, bytes_of(copy, der.len), &csr, &fault);
        ck_assert_msg(e == ERR_DENIED || csr.kind == 0, "byte %zu", i);
        csr_done(&csr);
        ck_assert_int_eq(csr_decode(&a, bytes_of(der.data, i), &csr, &fault), ERR_DENIED);
    }
    key_free(key);
    arena_done(&a);
}
END_TEST

START_TEST(sha1_signatures_are_refused)
{
    struct arena a;
    EVP_PKEY *key = NULL;
    struct csr csr = {0};
    struct fault fault = {0};
    arena_init(&a, 1 << 20);
    ck_assert_int_eq(key_generate(KEY_P256, &key), ERR_OK);
    ck_assert_int_eq(csr_decode(&a, csr_make(&a, key, "x", EVP_sha1()), &csr, &fault), ERR_DENIED);
    ck_assert_int_eq(fault.code, FAULT_CSR_SIGNATURE);
    key_free(key);
    arena_done(&a);
}
END_TEST

START_TEST(unwrapping_rejects)
{
    static const char *const bad[] = {
        "",
        "!",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA",
        "=",
        "AAA"};
    struct arena a;
    struct bytes der;
    arena_init(&a, 1 << 20);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(csr_unwrap(&a, bytes_text(bad[i]), &der) == ERR_INVALID, "%s", bad[i]);
    arena_done(&a);
}
END_TEST

struct world {
    struct arena arena;
    EVP_PKEY *root_key, *issuing_key;
    struct bytes root, issuing;
    struct issuer *issuer;
};

static struct signer_test {
    struct signer base;
    EVP_PKEY *key;
} test_signer;

static EVP_PKEY *test_key(const struct signer *s)
{
    return ((const struct signer_test *)s)->key;
}

static void test_free(struct signer *s)
{
    (void)s;
}

static const struct signer_ops test_ops = {.key_get = test_key, .free = test_free};

static void world_make(struct world *w, int64_t issuing_life_s)
{
    struct ca_request root = {
        .common_name = "Root", .validity_s = 20 * (int64_t)YEAR_S, .path_len = -1, .now_s = NOW_S};
    struct ca_request issuing = {.common_name = "Issuing",
                                 .organization = "O",
                                 .validity_s = issuing_life_s,
                                 .path_len = 0,
                                 .now_s = NOW_S};
    arena_init(&w->arena, 16 << 20);
    ck_assert_int_eq(key_generate(KEY_P256, &w->root_key), ERR_OK);
    ck_assert_int_eq(key_generate(KEY_P384, &w->issuing_key), ERR_OK);
    ck_assert_int_eq(ca_make_root(w->root_key, &root, &w->arena, &w->root), ERR_OK);
    ck_assert_int_eq(
        ca_make_issuing(w->issuing_key, &issuing, w->root, w->root_key, &w->arena, &w->issuing),
        ERR_OK);
    test_signer = (struct signer_test){.base = {&test_ops}, .key = w->issuing_key};
    ck_assert_int_eq(issuer_new(7, "issuing", w->issuing, &test_signer.base, &w->issuer), ERR_OK);
}

static void world_end(struct world *w)
{
    issuer_free(w->issuer);
    key_free(w->root_key);
    key_free(w->issuing_key);
    arena_done(&w->arena);
}

static struct issued sign(struct world *w, EVP_PKEY *key, const struct cert_profile *p)
{
    struct csr csr = {0};
    struct fault fault = {0};
    struct issued issued;
    struct bytes none = {0};
    ck_assert_int_eq(
        csr_decode(&w->arena, csr_make(&w->arena, key, "x", EVP_sha256()), &csr, &fault), ERR_OK);
    ck_assert_int_eq(issuer_sign(w->issuer, &csr, p, none, none, NOW_S, &w->arena, &issued),
                     ERR_OK);
    csr_done(&csr);
    return issued;
}

START_TEST(what_is_signed_verifies_and_says_what_the_profile_said)
{
    struct world w = {.issuer = NULL};
    EVP_PKEY *key = NULL;
    struct cert_profile p = {.subject = {{"CN", "SN-1"}, {"O", "Grüezi AG"}},
                             .subject_count = 2,
                             .san = {{SAN_URI, "urn:muster:pump:SN-1"}, {SAN_DNS, "a.example"}},
                             .san_count = 2,
                             .validity_s = YEAR_S,
                             .backdate_s = 60,
                             .eku = EKU_CLIENT_AUTH};
    struct chain_verdict verdict = {0};
    struct fault fault = {0};
    struct trust *trust = NULL;
    world_make(&w, 10 * (int64_t)YEAR_S);
    ck_assert_int_eq(key_generate(KEY_P256, &key), ERR_OK);
    struct issued issued = sign(&w, key, &p);
    struct trust_ca cas[] = {{.der = w.root, .role = TRUST_ANCHOR, .id = 1},
                             {.der = w.issuing, .role = TRUST_ANCHOR, .id = 2}};
    ck_assert_int_eq(trust_new(cas, 2, &trust), ERR_OK);
    ck_assert_msg(chain_verify(trust, &w.arena, &issued.der, 1, NOW_S, &verdict, &fault) == ERR_OK,
                  "%s", fault.detail);
    ck_assert_int_eq(verdict.anchor_id, 2);
    ck_assert_str_eq(verdict.leaf.cn, "SN-1");
    ck_assert_str_eq(verdict.leaf.urn, "urn:muster:pump:SN-1");
    ck_assert_int_eq(verdict.leaf.not_before_s, NOW_S - 60);
    ck_assert_int_eq(verdict.leaf.not_after_s, NOW_S + YEAR_S);
    ck_assert_mem_eq(verdict.leaf.fingerprint, issued.fingerprint, SHA256_BYTES);
    ck_assert_int_eq(chain_verify(trust, &w.arena, &issued.der, 1, NOW_S + 2 * (int64_t)YEAR_S,
                                  &verdict, &fault),
                     ERR_DENIED);
    ck_assert_int_eq(fault.code, FAULT_CERT_EXPIRED);
    ck_assert_int_eq(chain_verify(trust, &w.arena, &issued.der, 1, NOW_S - 3600, &verdict, &fault),
                     ERR_DENIED);
    ck_assert_int_eq(fault.code, FAULT_CERT_NOT_YET);
    trust_free(trust);
    key_free(key);
    world_end(&w);
}
END_TEST

START_TEST(validity_stays_within_the_issuers)
{
    struct world w = {.issuer = NULL};
    EVP_PKEY *key = NULL;
    struct cert_profile p = {.subject = {{"CN", "x"}},
                             .subject_count = 1,
                             .validity_s = 30 * (int64_t)YEAR_S,
                             .backdate_s = 30 * 86400,
                             .eku = EKU_CLIENT_AUTH};
    world_make(&w, YEAR_S);
    ck_assert_int_eq(key_generate(KEY_P256, &key), ERR_OK);
    struct issued issued = sign(&w, key, &p);
    ck_assert_int_eq(issued.not_after_s, issuer_not_after_s(w.issuer));
    ck_assert_int_ge(issued.not_before_s, NOW_S - 86400);
    key_free(key);
    world_end(&w);
}
END_TEST

START_TEST(serial_numbers_are_twenty_random_bytes)
{
    struct world w = {.issuer = NULL};
    EVP_PKEY *key = NULL;
    struct cert_profile p = {
        .subject = {{"CN", "x"}}, .subject_count = 1, .validity_s = YEAR_S, .eku = EKU_CLIENT_AUTH};
    uint8_t before[ISSUER_SERIAL_BYTES] = {0};
    world_make(&w, YEAR_S);
    ck_assert_int_eq(key_generate(KEY_P256, &key), ERR_OK);
    for (int i = 0; i < 16; i++) {
        struct issued issued = sign(&w, key, &p);
        ck_assert_int_eq(issued.serial_number[0] & 0xc0, 0x40);
        ck_assert_mem_ne(before, issued.serial_number, sizeof(before));
        memcpy(before, issued.serial_number, sizeof(before));
    }
    key_free(key);
    world_end(&w);
}
END_TEST

START_TEST(an_issuer_needs_its_own_key_and_a_ca_certificate)
{
    struct world w = {.issuer = NULL};
    struct issuer *other = NULL;
    world_make(&w, YEAR_S);
    test_signer.key = w.root_key;
    ck_assert_int_eq(issuer_new(1, "x", w.issuing, &test_signer.base, &other), ERR_INVALID);
    test_signer.key = w.issuing_key;
    world_end(&w);
}
END_TEST

START_TEST(names_compare_as_rfc_5280_says)
{
    static const uint8_t utf8[] = {0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03,
                                   0x55, 0x04, 0x03, 0x0c, 0x02, 'A',  'b'};
    static const uint8_t printable[] = {0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03,
                                        0x55, 0x04, 0x03, 0x13, 0x02, 'a',  'B'};
    static const uint8_t other[] = {0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03,
                                    0x55, 0x04, 0x03, 0x13, 0x02, 'a',  'C'};
    ck_assert(name_equal(bytes_of(utf8, sizeof(utf8)), bytes_of(printable, sizeof(printable))));
    ck_assert(!name_equal(bytes_of(utf8, sizeof(utf8)), bytes_of(other, sizeof(other))));
    ck_assert(!name_equal(bytes_of(utf8, sizeof(utf8)), bytes_of("x", 1)));
}
END_TEST

START_TEST(the_version_of_a_certificate)
{
    static const uint8_t first[] = {0x30, 0x07, 0x30, 0x05, 0x02, 0x01, 0x07, 0x30, 0x00};
    uint8_t der[] = {0x30, 0x0c, 0x30, 0x0a, 0xa0, 0x03, 0x02,
                     0x01, 0x02, 0x02, 0x01, 0x07, 0x30, 0x00};
    enum { VERSION = 8 };
    int version = 0;
    ck_assert_int_eq(cert_version(bytes_of(first, sizeof(first)), &version), ERR_OK);
    ck_assert_int_eq(version, 1);
    ck_assert_int_eq(cert_version(bytes_of(der, sizeof(der)), &version), ERR_OK);
    ck_assert_int_eq(version, 3);
    der[VERSION] = 3;
    ck_assert_int_eq(cert_version(bytes_of(der, sizeof(der)), &version), ERR_INVALID);
    for (size_t len = 0; len < VERSION; len++)
        ck_assert_int_eq(cert_version(bytes_of(der, len), &version), ERR_INVALID);
}
END_TEST

SUITE("pki", the_version_of_a_certificate, every_kind_of_key_round_trips_through_a_csr,
      a_csr_that_is_broken_at_any_byte_never_passes_as_another, sha1_signatures_are_refused,
      unwrapping_rejects, what_is_signed_verifies_and_says_what_the_profile_said,
      validity_stays_within_the_issuers, serial_numbers_are_twenty_random_bytes,
      an_issuer_needs_its_own_key_and_a_ca_certificate, names_compare_as_rfc_5280_says)
