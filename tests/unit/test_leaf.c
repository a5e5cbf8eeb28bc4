/* The plain way of chain_verify against the generic one: same verdicts, and nothing taken that is
 * not plain. */
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "../fuzz/leaf_same.h"
#include "base/cleanup.h"
#include "pki/ca.h"
#include "pki/key.h"
#include "suite.h"

enum { YEAR_S = 365 * 86400, NOW_S = 1900000000, MAX_CAS = 3 };

/* A CA with its key. */
struct ca {
    EVP_PKEY *key;
    struct bytes der;
    X509 *cert;
};

/* What a leaf has; the defaults of plain_leaf where a case does not say. */
struct leaf {
    const char *cn;
    struct extension {
        int nid;
        const char *value;
    } extensions[6];
    int64_t not_before_s;
    int64_t not_after_s;
    const EVP_MD *digest;
    enum key_kind kind;
};

#define PLAIN_EXTENSIONS                                                                           \
    {NID_basic_constraints, "critical,CA:FALSE"}, {NID_key_usage, "critical,digitalSignature"},    \
        {NID_ext_key_usage, "clientAuth"},                                                         \
    {                                                                                              \
        NID_authority_key_identifier, "keyid"                                                      \
    }

static struct leaf plain_leaf(void)
{
    return (struct leaf){.cn = "SN-1",
                         .extensions = {PLAIN_EXTENSIONS,
                                        {NID_subject_alt_name,
                                         "URI:urn:muster:pump:SN-1,DNS:a,otherName:1.2.3;UTF8:x"}},
                         .not_before_s = NOW_S - 60,
                         .not_after_s = NOW_S + YEAR_S,
                         .digest = EVP_sha256(),
                         .kind = KEY_P256};
}

static struct ca ca_make(struct arena *a, enum key_kind kind, const char *name)
{
    struct ca ca = {0};
    struct ca_request rq = {.common_name = name,
                            .organization = "Grüezi AG",
                            .validity_s = 20 * (int64_t)YEAR_S,
                            .path_len = -1,
                            .now_s = NOW_S - YEAR_S};
    ck_assert_int_eq(key_generate(kind, &ca.key), ERR_OK);
    ck_assert_int_eq(ca_make_root(ca.key, &rq, a, &ca.der), ERR_OK);
    ck_assert_int_eq(cert_decode(ca.der, &ca.cert), ERR_OK);
    return ca;
}

static struct ca ca_make_below(struct arena *a, const struct ca *parent)
{
    struct ca ca = {0};
    struct ca_request rq = {
        .common_name = "Line 7", .validity_s = YEAR_S, .path_len = 0, .now_s = NOW_S - 3600};
    ck_assert_int_eq(key_generate(KEY_P256, &ca.key), ERR_OK);
    ck_assert_int_eq(ca_make_issuing(ca.key, &rq, parent->der, parent->key, a, &ca.der), ERR_OK);
    ck_assert_int_eq(cert_decode(ca.der, &ca.cert), ERR_OK);
    return ca;
}

static void ca_done(struct ca *ca)
{
    key_free(ca->key);
    cert_free(ca->cert);
}

static void extensions_add(X509 *x, X509 *issuer, const struct leaf *l)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    for (size_t i = 0; i < ARRAY_LEN(l->extensions) && l->extensions[i].value; i++) {
        X509_EXTENSION *e =
            X509V3_EXT_conf_nid(NULL, &ctx, l->extensions[i].nid, l->extensions[i].value);
        ck_assert_msg(e && X509_add_ext(x, e, -1), "%s", l->extensions[i].value);
        X509_EXTENSION_free(e);
    }
}

static struct bytes leaf_make(struct arena *a, const struct ca *ca, const struct leaf *l)
{
    EVP_PKEY *key = NULL;
    X509 *x = X509_new();
    struct bytes der;
    ck_assert_int_eq(key_generate(l->kind, &key), ERR_OK);
    X509_set_version(x, X509_VERSION_3);
    ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), UINT64_C(0x8000000000000001));
    X509_set_issuer_name(x, X509_get_subject_name(ca->cert));
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
                               (const unsigned char *)l->cn, -1, -1, 0);
    ASN1_TIME_set(X509_getm_notBefore(x), l->not_before_s);
    ASN1_TIME_set(X509_getm_notAfter(x), l->not_after_s);
    X509_set_pubkey(x, key);
    extensions_add(x, ca->cert, l);
    ck_assert(X509_sign(x, ca->key, l->digest) > 0);
    ck_assert_int_eq(cert_encode(a, x, &der), ERR_OK);
    X509_free(x);
    key_free(key);
    return der;
}

static struct trust *trust_make(const struct ca *const *cas, const enum trust_role *roles,
                                size_t count)
{
    struct trust *t = NULL;
    struct trust_ca known[MAX_CAS];
    for (size_t i = 0; i < count; i++)
        known[i] = (struct trust_ca){.der = cas[i]->der, .role = roles[i], .id = 10 + (int64_t)i};
    ck_assert_int_eq(trust_new(known, count, &t), ERR_OK);
    return t;
}

static struct trust *trust_make_one(const struct ca *ca)
{
    return trust_make((const struct ca *[]){ca}, (enum trust_role[]){TRUST_ANCHOR}, 1);
}

START_TEST(plain_leaves_get_the_verdict_of_the_generic_way)
{
    static const enum key_kind kinds[] = {KEY_P256, KEY_P384};
    struct arena a;
    arena_init(&a, 16 << 20);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct ca ca = ca_make(&a, kinds[i], "Factory");
        struct trust *t = trust_make_one(&ca);
        struct leaf plain = plain_leaf(), bare = plain, far = plain;
        memset(bare.extensions, 0, sizeof(bare.extensions));
        bare.extensions[0] = (struct extension){NID_key_usage, "digitalSignature,decipherOnly"};
        far.not_after_s = INT64_C(253402300799); /* RFC 5280 4.1.2.5: no expiry */
        far.kind = KEY_P384;
        far.digest = EVP_sha512();
        const struct leaf leaves[] = {plain, bare, far};
        for (size_t n = 0; n < ARRAY_LEN(leaves); n++) {
            struct bytes chain[] = {leaf_make(&a, &ca, &leaves[n]), ca.der};
            ck_assert_msg(leaf_same(t, &a, chain, 1, NOW_S), "leaf %zu", n);
            ck_assert_msg(leaf_same(t, &a, chain, 2, NOW_S), "leaf %zu with its CA", n);
        }
        trust_free(t);
        ca_done(&ca);
    }
    arena_done(&a);
}
END_TEST

/* How a leaf that differs from a plain one in one thing ends in the generic way. */
static enum fault_code generic_fault(const struct trust *t, struct arena *a, struct bytes der,
                                     int64_t now_s)
{
    struct chain_verdict v = {0};
    struct fault fault = {.code = FAULT_NONE};
    ck_assert(!chain_verify_plain(t, a, &der, 1, now_s, &v));
    enum err e = chain_verify(t, a, &der, 1, now_s, &v, &fault);
    ck_assert_int_eq(e == ERR_OK, fault.code == FAULT_NONE);
    return fault.code;
}

START_TEST(leaves_that_are_not_plain_are_left_to_the_generic_way)
{
    static const struct {
        struct extension extension;
        enum fault_code fault;
    } cases[] = {
        {{NID_ext_key_usage, "serverAuth"}, FAULT_CHAIN_INVALID},
        {{NID_ext_key_usage, "clientAuth,1.3.6.1.5.5.7.3.28"}, FAULT_NONE},
        {{NID_ext_key_usage, "clientAuth,1.2.3.4"}, FAULT_NONE},
        {{NID_basic_constraints, "critical,CA:TRUE"}, FAULT_CHAIN_INVALID},
        {{NID_key_usage, "keyCertSign"}, FAULT_NONE},
        {{NID_authority_key_identifier, "issuer:always"}, FAULT_NONE},
        {{NID_crl_distribution_points, "URI:http://c/"}, FAULT_NONE},
        {{NID_name_constraints, "critical,permitted;DNS:a"}, FAULT_NONE},
        {{NID_policy_constraints, "critical,requireExplicitPolicy:0"}, FAULT_NONE},
    };
    struct arena a;
    arena_init(&a, 16 << 20);
    struct ca ca = ca_make(&a, KEY_P256, "Factory");
    struct trust *t = trust_make_one(&ca);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct leaf l = plain_leaf();
        memset(l.extensions, 0, sizeof(l.extensions));
        l.extensions[0] = cases[i].extension;
        enum fault_code code = generic_fault(t, &a, leaf_make(&a, &ca, &l), NOW_S);
        ck_assert_msg(code == cases[i].fault, "case %zu", i);
    }
    trust_free(t);
    ca_done(&ca);
    arena_done(&a);
}
END_TEST

START_TEST(faults_are_told_by_the_generic_way)
{
    struct arena a;
    arena_init(&a, 16 << 20);
    struct ca ca = ca_make(&a, KEY_P256, "Factory"), other = ca_make(&a, KEY_P256, "Factory");
    struct ca stranger = ca_make(&a, KEY_P256, "Stranger");
    struct trust *t = trust_make_one(&ca);
    struct leaf l = plain_leaf(), weak = l;
    struct bytes der = leaf_make(&a, &ca, &l);
    weak.digest = EVP_sha1();
    ck_assert_int_eq(generic_fault(t, &a, der, l.not_after_s + 1), FAULT_CERT_EXPIRED);
    ck_assert_int_eq(generic_fault(t, &a, der, l.not_before_s - 1), FAULT_CERT_NOT_YET);
    ck_assert_int_eq(generic_fault(t, &a, leaf_make(&a, &ca, &weak), NOW_S), FAULT_CHAIN_INVALID);
    ck_assert_int_eq(generic_fault(t, &a, leaf_make(&a, &stranger, &l), NOW_S),
                     FAULT_CA_NOT_REGISTERED);
    /* the AKI tells the two of one name apart */
    ck_assert_int_eq(generic_fault(t, &a, leaf_make(&a, &other, &l), NOW_S),
                     FAULT_CA_NOT_REGISTERED);
    memset(l.extensions, 0, sizeof(l.extensions));
    l.extensions[0] = (struct extension){NID_ext_key_usage, "clientAuth"};
    ck_assert_int_eq(generic_fault(t, &a, leaf_make(&a, &other, &l), NOW_S), FAULT_CHAIN_SIGNATURE);
    trust_free(t);
    ca_done(&ca);
    ca_done(&other);
    ca_done(&stranger);
    arena_done(&a);
}
END_TEST

/* Whether a plain leaf below cas[0] is taken with these CAs known. */
static bool taken(struct arena *a, const struct ca *const *cas, const enum trust_role *roles,
                  size_t count)
{
    struct leaf l = plain_leaf();
    struct trust *t = trust_make(cas, roles, count);
    if (key_kind_of(cas[0]->key) == KEY_ED25519)
        l.digest = NULL;
    struct bytes der = leaf_make(a, cas[0], &l);
    bool plain = leaf_same(t, a, &der, 1, NOW_S);
    trust_free(t);
    return plain;
}

START_TEST(only_an_anchor_that_stands_alone_is_plain)
{
    static const enum trust_role anchors[] = {TRUST_ANCHOR, TRUST_ANCHOR, TRUST_ANCHOR};
    static const enum trust_role with_helper[] = {TRUST_ANCHOR, TRUST_HELPER};
    static const enum trust_role with_refused[] = {TRUST_ANCHOR, TRUST_REFUSED};
    static const enum trust_role helper[] = {TRUST_HELPER}, refused[] = {TRUST_REFUSED};
    struct arena a;
    arena_init(&a, 16 << 20);
    struct ca one = ca_make(&a, KEY_P256, "Factory"), same_name = ca_make(&a, KEY_P256, "Factory");
    struct ca other = ca_make(&a, KEY_P256, "Other"), rsa = ca_make(&a, KEY_RSA2048, "RSA");
    struct ca ed = ca_make(&a, KEY_ED25519, "Ed"), below = ca_make_below(&a, &other);
    struct ca crossed = {.key = one.key};
    ck_assert_int_eq(ca_make_cross(one.der, other.der, other.key, NOW_S, &a, &crossed.der), ERR_OK);
    ck_assert(taken(&a, (const struct ca *[]){&one}, anchors, 1));
    ck_assert(taken(&a, (const struct ca *[]){&one, &other, &rsa}, anchors, 3));
    ck_assert(taken(&a, (const struct ca *[]){&below}, anchors, 1));
    ck_assert(!taken(&a, (const struct ca *[]){&below, &other}, anchors, 2));
    ck_assert(!taken(&a, (const struct ca *[]){&below, &other}, with_helper, 2));
    ck_assert(!taken(&a, (const struct ca *[]){&below, &other}, with_refused, 2));
    ck_assert(!taken(&a, (const struct ca *[]){&one, &same_name}, anchors, 2));
    ck_assert(!taken(&a, (const struct ca *[]){&one, &crossed}, with_helper, 2));
    ck_assert(!taken(&a, (const struct ca *[]){&one, &crossed}, with_refused, 2));
    ck_assert(!taken(&a, (const struct ca *[]){&rsa}, anchors, 1));
    ck_assert(!taken(&a, (const struct ca *[]){&ed}, anchors, 1));
    ck_assert(!taken(&a, (const struct ca *[]){&one}, helper, 1));
    ck_assert(!taken(&a, (const struct ca *[]){&one}, refused, 1));
    ca_done(&one);
    ca_done(&same_name);
    ca_done(&other);
    ca_done(&rsa);
    ca_done(&ed);
    ca_done(&below);
    arena_done(&a);
}
END_TEST

START_TEST(other_certificates_in_the_chain_are_left_to_the_generic_way)
{
    struct arena a;
    arena_init(&a, 16 << 20);
    struct ca ca = ca_make(&a, KEY_P256, "Factory"), other = ca_make(&a, KEY_P256, "Other");
    struct trust *t = trust_make_one(&ca);
    struct leaf l = plain_leaf();
    struct bytes chain[] = {leaf_make(&a, &ca, &l), other.der, ca.der};
    struct chain_verdict v;
    ck_assert(!leaf_same(t, &a, chain, 2, NOW_S));
    ck_assert(!leaf_same(t, &a, chain, 3, NOW_S));
    ck_assert(!chain_verify_plain(t, &a, chain, 0, NOW_S, &v));
    trust_free(t);
    ca_done(&ca);
    ca_done(&other);
    arena_done(&a);
}
END_TEST

START_TEST(no_broken_leaf_is_taken)
{
    struct arena a;
    arena_init(&a, 256 << 20);
    struct ca ca = ca_make(&a, KEY_P256, "Factory");
    struct trust *t = trust_make_one(&ca);
    struct leaf l = plain_leaf();
    struct bytes der = leaf_make(&a, &ca, &l);
    ck_assert(leaf_same(t, &a, &der, 1, NOW_S));
    for (size_t i = 0; i < der.len; i++) {
        uint8_t *copy = arena_copy(&a, der.data, der.len);
        struct bytes flipped = bytes_of(copy, der.len), cut = bytes_of(der.data, i);
        copy[i] ^= 0x01;
        ck_assert_msg(!leaf_same(t, &a, &flipped, 1, NOW_S), "byte %zu", i);
        ck_assert_msg(!leaf_same(t, &a, &cut, 1, NOW_S), "length %zu", i);
    }
    trust_free(t);
    ca_done(&ca);
    arena_done(&a);
}
END_TEST

SUITE("leaf", plain_leaves_get_the_verdict_of_the_generic_way,
      leaves_that_are_not_plain_are_left_to_the_generic_way, faults_are_told_by_the_generic_way,
      only_an_anchor_that_stands_alone_is_plain,
      other_certificates_in_the_chain_are_left_to_the_generic_way, no_broken_leaf_is_taken)
