/* The short routes of pki/ against the generic ones: the same values, the same bytes. */
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "../fuzz/csr_same.h"
#include "base/cleanup.h"
#include "pki/ca.h"
#include "pki/cert.h"
#include "pki/der.h"
#include "pki/issuer.h"
#include "suite.h"

enum { YEAR_S = 365 * 86400, NOW_S = 1900000000 };

/* The first second of 2050, from which on times are written otherwise. */
static const int64_t year_2050_s = 2524608000;

static const char *const everything[] = {"CN",        "SN-1", "serialNumber", "77", "O",
                                         "Grüezi AG", NULL};

static X509_NAME *name_make(const char *const *parts)
{
    X509_NAME *name = X509_NAME_new();
    for (size_t i = 0; parts && parts[i]; i += 2)
        ck_assert(X509_NAME_add_entry_by_txt(name, parts[i], MBSTRING_UTF8,
                                             (const unsigned char *)parts[i + 1], -1, -1, 0));
    return name;
}

static struct bytes csr_make(struct arena *a, EVP_PKEY *key, const char *const *parts,
                             const char *san, const char *password, const EVP_MD *md)
{
    X509_REQ *rq = X509_REQ_new();
    X509_NAME *name = name_make(parts);
    unsigned char *der = NULL;
    X509_REQ_set_subject_name(rq, name);
    X509_REQ_set_pubkey(rq, key);
    if (san) {
        STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
        sk_X509_EXTENSION_push(list, X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, san));
        ck_assert(X509_REQ_add_extensions(rq, list));
        sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
    }
    if (password)
        ck_assert(X509_REQ_add1_attr_by_NID(rq, NID_pkcs9_challengePassword, MBSTRING_UTF8,
                                            (const unsigned char *)password, -1));
    ck_assert(X509_REQ_sign(rq, key, md) > 0);
    int len = i2d_X509_REQ(rq, &der);
    void *copy = arena_copy(a, der, (size_t)len);
    OPENSSL_free(der);
    X509_NAME_free(name);
    X509_REQ_free(rq);
    return bytes_of(copy, (size_t)len);
}

static const struct csr_case {
    const char *const *subject;
    const char *san, *password;
} csr_cases[] = {
    {everything, NULL, NULL},
    {everything, "URI:urn:muster:pump:SN-1,DNS:a.example,email:a@b,IP:192.0.2.1,IP:::1", "secret"},
    {NULL, "URI:https://x.example/,URI:urn:dev:ops:1,URI:urn:other", NULL},
    {NULL, NULL, "s"},
};

START_TEST(plain_requests_are_read_without_openssls_decoders)
{
    static const enum key_kind kinds[] = {KEY_P256, KEY_P384};
    const EVP_MD *digests[] = {EVP_sha256(), EVP_sha384(), EVP_sha512()};
    struct arena a;
    arena_init(&a, 16 << 20);
    for (size_t i = 0; i < ARRAY_LEN(csr_cases) * ARRAY_LEN(kinds) * ARRAY_LEN(digests); i++) {
        const struct csr_case *c = &csr_cases[i / 6];
        EVP_PKEY *key = NULL;
        struct csr csr = {0};
        ck_assert_int_eq(key_generate(kinds[i % 2], &key), ERR_OK);
        struct bytes der = csr_make(&a, key, c->subject, c->san, c->password, digests[i % 3]);
        csr_same(&a, der);
        ck_assert_msg(csr_decode_plain(&a, der, &csr), "case %zu", i);
        ck_assert_int_eq(csr.kind, kinds[i % 2]);
        ck_assert_ptr_null(csr.request);
        ck_assert_int_eq(csr.cn != NULL, c->subject != NULL);
        ck_assert_int_eq(csr.urn != NULL, c->san != NULL);
        ck_assert_int_eq(csr.challenge != NULL, c->password != NULL);
        csr_done(&csr);
        key_free(key);
    }
    arena_done(&a);
}
END_TEST

START_TEST(other_keys_and_other_shapes_are_left_to_the_generic_route)
{
    static const char *const mail[] = {"emailAddress", "a@b", NULL};
    struct arena a;
    struct csr csr = {0};
    EVP_PKEY *ec = NULL, *rsa = NULL, *ed = NULL, *p521 = EVP_EC_gen("P-521");
    arena_init(&a, 16 << 20);
    ck_assert_int_eq(key_generate(KEY_P256, &ec), ERR_OK);
    ck_assert_int_eq(key_generate(KEY_RSA2048, &rsa), ERR_OK);
    ck_assert_int_eq(key_generate(KEY_ED25519, &ed), ERR_OK);
    const struct bytes others[] = {
        csr_make(&a, rsa, everything, NULL, NULL, EVP_sha256()),
        csr_make(&a, ed, everything, NULL, NULL, NULL),
        csr_make(&a, p521, everything, NULL, NULL, EVP_sha512()),
        csr_make(&a, ec, everything, NULL, NULL, EVP_sha1()),
        csr_make(&a, ec, everything, NULL, NULL, EVP_sha224()),
        csr_make(&a, ec, mail, NULL, NULL, EVP_sha256()),
        csr_make(&a, ec, everything, "otherName:1.2.3;UTF8:x", NULL, EVP_sha256()),
        csr_make(&a, ec, everything, "RID:1.2.3", NULL, EVP_sha256()),
    };
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        ck_assert_msg(!csr_decode_plain(&a, others[i], &csr), "case %zu", i);
    EVP_PKEY_free(p521);
    key_free(ec);
    key_free(rsa);
    key_free(ed);
    arena_done(&a);
}
END_TEST

START_TEST(a_broken_request_is_refused_by_the_generic_route)
{
    struct arena a;
    EVP_PKEY *key = NULL;
    struct csr csr = {0};
    struct fault fault = {0};
    arena_init(&a, 64 << 20);
    ck_assert_int_eq(key_generate(KEY_P256, &key), ERR_OK);
    struct bytes der = csr_make(&a, key, everything, csr_cases[1].san, "secret", EVP_sha256());
    for (size_t i = 0; i < der.len; i++) {
        uint8_t *copy = arena_copy(&a, der.data, der.len);
        copy[i] ^= 0x01;
        csr_same(&a, bytes_of(copy, der.len));
        ck_assert_msg(!csr_decode_plain(&a, bytes_of(copy, der.len), &csr), "byte %zu", i);
        ck_assert(!csr_decode_plain(&a, bytes_of(der.data, i), &csr));
    }
    uint8_t *forged = arena_copy(&a, der.data, der.len);
    forged[der.len - 1] ^= 0x01;
    ck_assert_int_eq(csr_decode(&a, bytes_of(forged, der.len), &csr, &fault), ERR_DENIED);
    ck_assert_int_eq(fault.code, FAULT_CSR_SIGNATURE);
    ck_assert_str_eq(fault.detail, "the signature does not match the key");
    key_free(key);
    arena_done(&a);
}
END_TEST

START_TEST(der_is_read_in_one_form_only)
{
    static const struct {
        const char *bytes;
        size_t len;
        bool good;
    } cases[] = {
        {"\x04\x01x", 3, true},          {"\x04\x00", 2, true},
        {"\x04\x81\x01x", 4, false},     {"\x04\x80x\x00\x00", 5, false},
        {"\x04\x82\x00\x01x", 5, false}, {"\x04\x83\x00\x00\x01x", 6, false},
        {"\x04\x02x", 3, false},         {"\x04", 1, false},
        {"\x04\x81", 2, false},          {"\x04\x82\x01", 3, false},
        {"\x05\x00", 2, false},          {"", 0, false},
        {"\x04\x01xy", 4, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct der_reader r = der_read(bytes_of(cases[i].bytes, cases[i].len));
        (void)der_next(&r, DER_OCTET_STRING);
        ck_assert_msg(der_ended(&r) == cases[i].good, "case %zu", i);
    }
    struct der_reader r = der_read(bytes_of("\x1f\x01\x00", 3));
    (void)der_next(&r, der_peek(&r));
    ck_assert(!der_ended(&r));
}
END_TEST

START_TEST(der_lengths_of_two_bytes)
{
    uint8_t long_one[4 + 300] = {DER_OCTET_STRING, 0x82, 0x01, 0x2c};
    uint8_t middle[3 + 200] = {DER_OCTET_STRING, 0x81, 200};
    struct der_reader r = der_read(bytes_of(long_one, sizeof(long_one)));
    ck_assert_uint_eq(der_next(&r, DER_OCTET_STRING).len, 300);
    ck_assert(der_ended(&r));
    r = der_read(bytes_of(middle, sizeof(middle)));
    ck_assert_uint_eq(der_next_whole(&r, DER_OCTET_STRING).len, sizeof(middle));
    ck_assert(der_ended(&r));
}
END_TEST

START_TEST(times_change_their_form_in_2050)
{
    struct buf b;
    buf_init(&b, 64);
    ck_assert_int_eq(der_time(&b, year_2050_s - 1), ERR_OK);
    ck_assert_str_eq(buf_text(&b), "\x17\x0d"
                                   "491231235959Z");
    buf_reset(&b);
    ck_assert_int_eq(der_time(&b, year_2050_s), ERR_OK);
    ck_assert_str_eq(buf_text(&b), "\x18\x0f"
                                   "20500101000000Z");
    ck_assert_int_eq(der_time(&b, INT64_C(253402300800)), ERR_INVALID);
    ck_assert_int_eq(der_time(&b, -631152001), ERR_INVALID);
    buf_done(&b);
}
END_TEST

struct signer_test {
    struct signer base;
    EVP_PKEY *key;
};

static EVP_PKEY *test_key(const struct signer *s)
{
    return ((const struct signer_test *)s)->key;
}

static void test_free(struct signer *s)
{
    key_free(((struct signer_test *)s)->key);
    free(s);
}

static const struct signer_ops test_ops = {.key_get = test_key, .free = test_free};

static struct issuer *issuer_make(struct arena *a, enum key_kind kind)
{
    struct ca_request rq = {.common_name = "Issuing",
                            .organization = "Grüezi AG",
                            .validity_s = 50 * (int64_t)YEAR_S,
                            .path_len = -1,
                            .now_s = NOW_S};
    struct signer_test *signer = calloc(1, sizeof(*signer));
    struct issuer *issuer = NULL;
    struct bytes der;
    signer->base.ops = &test_ops;
    ck_assert_int_eq(key_generate(kind, &signer->key), ERR_OK);
    ck_assert_int_eq(ca_make_root(signer->key, &rq, a, &der), ERR_OK);
    ck_assert_int_eq(issuer_new(1, "issuing", der, &signer->base, &issuer), ERR_OK);
    return issuer;
}

#define MANY_URLS                                                                                  \
    .crl_urls = {"http://crl.example/a.crl", "http://crl.example/b.crl?x=1;y=2:3@4",               \
                 "ldap://[::1]/"},                                                                 \
    .crl_url_count = 3

static const struct cert_profile profiles[] = {
    {.subject = {{"CN", "SN-1"}}, .subject_count = 1, .eku = EKU_CLIENT_AUTH},
    {.subject = {{"CN", "SN-1"}}, .subject_count = 1},
    {.san = {{SAN_URI, "urn:muster:pump:SN-1"}}, .san_count = 1, .eku = EKU_SERVER_AUTH},
    {.eku = EKU_CLIENT_AUTH | EKU_SERVER_AUTH},
    {.subject = {{"C", "CH"},
                 {"ST", "Zürich"},
                 {"L", "Zürich"},
                 {"O", "Grüezi AG"},
                 {"OU", "pumps"},
                 {"CN", "SN-1"},
                 {"serialNumber", "77"},
                 {"dnQualifier", "q"}},
     .subject_count = 8,
     .san = {{SAN_URI, "urn:muster:pump:SN-1"},
             {SAN_DNS, "a.example"},
             {SAN_EMAIL, "a@b.example"},
             {SAN_IP, "192.0.2.1"},
             {SAN_IP, "2001:db8::1"},
             {SAN_DNS, "*.b.example"},
             {SAN_URI, "https://c.example/?a=b,c"},
             {SAN_URI, "x:"}},
     .san_count = 8,
     .eku = EKU_CLIENT_AUTH | EKU_SERVER_AUTH | EKU_CMC_RA,
     .ocsp_url = "http://ocsp.example/",
     .ca_issuers_url = "http://ca.example/ca.cer",
     MANY_URLS},
    {.subject = {{"CN", "x"}}, .subject_count = 1, .eku = EKU_CMC_RA, .ocsp_url = "http://o/"},
    {.subject = {{"CN", "x"}}, .subject_count = 1, .ca_issuers_url = "http://c/", MANY_URLS},
    {.subject = {{"CN", "x"}},
     .subject_count = 1,
     .eku = EKU_CMC_RA | EKU_CLIENT_AUTH,
     .crl_urls = {"http://crl.example/a.crl"},
     .crl_url_count = 1},
};

static struct bytes tbs_of(struct bytes der)
{
    struct der_reader outer = der_read(der);
    struct der_reader cert = der_read(der_next(&outer, DER_SEQUENCE));
    struct bytes tbs = der_next_whole(&cert, DER_SEQUENCE);
    ck_assert_uint_gt(tbs.len, 0);
    return tbs;
}

static struct issuer_order order_make(const struct csr *csr, const struct cert_profile *p)
{
    struct issuer_order o = {.csr = csr,
                             .profile = p,
                             .serial_number = {0x41, 0x80, 0xff},
                             .not_before_s = NOW_S - 60,
                             .not_after_s = NOW_S + YEAR_S};
    o.serial_number[ISSUER_SERIAL_BYTES - 1] = 0x80;
    return o;
}

/* Both routes sign the same bytes, and either signature holds. */
static struct bytes routes_compare(struct arena *a, const struct issuer *issuer,
                                   const struct issuer_order *o)
{
    struct bytes der[2];
    static const enum issuer_route routes[] = {ISSUER_ROUTE_SHORT, ISSUER_ROUTE_GENERIC};
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        X509 *x = NULL;
        ck_assert_int_eq(issuer_sign_by(issuer, routes[i], o, a, &der[i]), ERR_OK);
        ck_assert_int_eq(cert_decode(der[i], &x), ERR_OK);
        ck_assert_int_eq(X509_verify(x, issuer_key(issuer)), 1);
        ck_assert_int_eq(X509_check_issued(issuer_certificate(issuer), x), X509_V_OK);
        cert_free(x);
    }
    struct bytes one = tbs_of(der[0]), other = tbs_of(der[1]);
    ck_assert_uint_eq(one.len, other.len);
    ck_assert_mem_eq(one.data, other.data, one.len);
    return der[0];
}

/* The certificate again, as a renewal copies its names. */
static void renewal_compare(struct arena *a, const struct issuer *issuer,
                            const struct issuer_order *o, struct bytes der)
{
    X509 *x = NULL;
    struct cert_info info;
    struct bytes issuer_name;
    struct issuer_order again = *o;
    ck_assert_int_eq(cert_decode(der, &x), ERR_OK);
    ck_assert_int_eq(cert_describe(a, x, &info), ERR_OK);
    cert_free(x);
    ck_assert_int_eq(cert_issuer_der(der, &issuer_name), ERR_OK);
    ck_assert(bytes_equal(issuer_name, info.issuer_der));
    again.subject_der = info.subject_der;
    again.san_der = info.san_der;
    struct bytes renewed = routes_compare(a, issuer, &again), tbs = tbs_of(renewed);
    ck_assert_uint_eq(tbs.len, tbs_of(der).len);
    ck_assert_mem_eq(tbs.data, tbs_of(der).data, tbs.len);
}

static void profiles_compare(struct arena *a, const struct issuer *issuer, enum key_kind kind)
{
    EVP_PKEY *key = NULL;
    struct csr csr[2] = {{0}, {0}};
    struct fault fault = {0};
    ck_assert_int_eq(key_generate(kind, &key), ERR_OK);
    struct bytes rq = csr_make(a, key, everything, NULL, NULL, EVP_sha256());
    ck_assert(csr_decode_plain(a, rq, &csr[0]));
    ck_assert_int_eq(csr_decode_generic(a, rq, &csr[1], &fault), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(profiles) * ARRAY_LEN(csr); i++) {
        struct issuer_order o = order_make(&csr[i % ARRAY_LEN(csr)], &profiles[i / ARRAY_LEN(csr)]);
        renewal_compare(a, issuer, &o, routes_compare(a, issuer, &o));
        o.not_before_s = year_2050_s - 1;
        o.not_after_s = year_2050_s;
        (void)routes_compare(a, issuer, &o);
    }
    csr_done(&csr[0]);
    csr_done(&csr[1]);
    key_free(key);
}

START_TEST(both_routes_sign_the_same_bytes)
{
    static const enum key_kind kinds[] = {KEY_P256, KEY_P384, KEY_RSA2048, KEY_ED25519};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct arena a;
        arena_init(&a, 64 << 20);
        struct issuer *issuer = issuer_make(&a, kinds[i]);
        profiles_compare(&a, issuer, KEY_P256);
        profiles_compare(&a, issuer, KEY_P384);
        issuer_free(issuer);
        arena_done(&a);
    }
}
END_TEST

START_TEST(a_certificates_key_has_the_fingerprint_of_the_key)
{
    static const enum key_kind kinds[] = {KEY_P256, KEY_P384, KEY_RSA2048, KEY_ED25519};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct arena a;
        uint8_t one[SHA256_BYTES], other[SHA256_BYTES];
        arena_init(&a, 1 << 20);
        struct issuer *issuer = issuer_make(&a, kinds[i]);
        ck_assert_int_eq(cert_key_fingerprint(issuer_certificate(issuer), one), ERR_OK);
        ck_assert_int_eq(key_fingerprint(issuer_key(issuer), other), ERR_OK);
        ck_assert_mem_eq(one, other, sizeof(one));
        issuer_free(issuer);
        arena_done(&a);
    }
}
END_TEST

START_TEST(what_the_short_route_does_not_sign)
{
    static const struct cert_profile odd[] = {
        {.crl_urls = {"http://a,URI:http://b"}, .crl_url_count = 1},
        {.ocsp_url = " http://a"},
        {.ca_issuers_url = ""},
    };
    struct arena a;
    struct csr ec = {0}, rsa = {0};
    struct fault fault = {0};
    struct bytes der;
    EVP_PKEY *ec_key = NULL, *rsa_key = NULL;
    arena_init(&a, 16 << 20);
    struct issuer *issuer = issuer_make(&a, KEY_P256);
    ck_assert_int_eq(key_generate(KEY_P256, &ec_key), ERR_OK);
    ck_assert_int_eq(key_generate(KEY_RSA2048, &rsa_key), ERR_OK);
    struct bytes ec_rq = csr_make(&a, ec_key, everything, NULL, NULL, EVP_sha256());
    struct bytes rsa_rq = csr_make(&a, rsa_key, everything, NULL, NULL, EVP_sha256());
    ck_assert_int_eq(csr_decode(&a, ec_rq, &ec, &fault), ERR_OK);
    ck_assert_int_eq(csr_decode(&a, rsa_rq, &rsa, &fault), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        struct issuer_order o = order_make(&ec, &odd[i]);
        ck_assert_int_eq(issuer_sign_by(issuer, ISSUER_ROUTE_SHORT, &o, &a, &der), ERR_NOT_FOUND);
    }
    struct issuer_order o = order_make(&rsa, &profiles[0]);
    ck_assert_int_eq(issuer_sign_by(issuer, ISSUER_ROUTE_SHORT, &o, &a, &der), ERR_NOT_FOUND);
    ck_assert_int_eq(issuer_sign_by(issuer, ISSUER_ROUTE_GENERIC, &o, &a, &der), ERR_OK);
    csr_done(&ec);
    csr_done(&rsa);
    key_free(ec_key);
    key_free(rsa_key);
    issuer_free(issuer);
    arena_done(&a);
}
END_TEST

SUITE("routes", plain_requests_are_read_without_openssls_decoders,
      other_keys_and_other_shapes_are_left_to_the_generic_route,
      a_broken_request_is_refused_by_the_generic_route, der_is_read_in_one_form_only,
      der_lengths_of_two_bytes, times_change_their_form_in_2050, both_routes_sign_the_same_bytes,
      a_certificates_key_has_the_fingerprint_of_the_key, what_the_short_route_does_not_sign)
