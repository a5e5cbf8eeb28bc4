/* Certificates of endorsement keys. */
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "pki/key.h"
#include "suite.h"
#include "tpm_golden.h"

enum { NOW_S = 1900000000, DAY_S = 86400 };

static enum err ek_try(const char *ek, struct bytes certificate, struct bytes root, int64_t now_s,
                       struct fault *fault)
{
    struct tpm_public p = golden_public(ek);
    struct chain_verdict verdict = {0};
    struct trust_ca ca = {.der = root, .role = TRUST_ANCHOR, .id = 7};
    _cleanup_(trust_freep) struct trust *roots = NULL;
    *fault = (struct fault){0};
    ck_assert_int_eq(trust_new(&ca, 1, &roots), ERR_OK);
    enum err e = tpm_ek_cert_check(roots, &arena, &certificate, 1, &p, now_s, &verdict, fault);
    ck_assert(e != ERR_OK || verdict.anchor_id == 7);
    return e;
}

START_TEST(a_manufacturers_certificate_is_taken_for_its_key_alone)
{
    begin();
    struct fault f;
    struct bytes rsa = golden("ek-rsa.certificate");
    struct bytes p384 = golden("ek-p384.certificate");
    struct bytes issuer = golden("issuer");
    ck_assert_msg(ek_try("ek-rsa", rsa, issuer, NOW_S, &f) == ERR_OK, "%s", f.detail);
    ck_assert_msg(ek_try("ek-p384", p384, issuer, NOW_S, &f) == ERR_OK, "%s", f.detail);
    ck_assert_int_eq(ek_try("ek-rsa", p384, issuer, NOW_S, &f), ERR_DENIED);
    ck_assert_int_eq(f.code, FAULT_CHAIN_INVALID);
    ck_assert_ptr_nonnull(strstr(f.detail, "not of the endorsement key"));
    ck_assert_int_eq(ek_try("ek-rsa", rsa, golden("root"), NOW_S, &f), ERR_DENIED);
    ck_assert_int_eq(f.code, FAULT_CA_NOT_REGISTERED);
    ck_assert_int_eq(ek_try("ek-rsa", rsa, issuer, 1700000000, &f), ERR_DENIED);
    ck_assert_int_eq(f.code, FAULT_CERT_NOT_YET);
    ck_assert_int_eq(ek_try("ek-rsa", issuer, issuer, NOW_S, &f), ERR_DENIED);
    ck_assert_ptr_nonnull(strstr(f.detail, "of a CA"));
    end();
}
END_TEST

START_TEST(intermediates_complete_a_manufacturers_chain)
{
    begin();
    struct fault f = {0};
    struct chain_verdict v = {0};
    struct tpm_public ek = golden_public("ek-rsa");
    struct trust_ca ca = {.der = golden("root"), .role = TRUST_ANCHOR, .id = 1};
    struct bytes chain[] = {golden("ek-rsa.certificate"), golden("issuer")};
    _cleanup_(trust_freep) struct trust *roots = NULL;
    ck_assert_int_eq(trust_new(&ca, 1, &roots), ERR_OK);
    ck_assert_msg(tpm_ek_cert_check(roots, &arena, chain, 2, &ek, NOW_S, &v, &f) == ERR_OK, "%s",
                  f.detail);
    ck_assert_int_eq(tpm_ek_cert_check(roots, &arena, chain, 1, &ek, NOW_S, &v, &f), ERR_DENIED);
    ck_assert_int_eq(chain_verify(roots, &arena, chain, 2, NOW_S, &v, &f), ERR_DENIED);
    ck_assert_ptr_nonnull(strstr(f.detail, "clientAuth"));
    end();
}
END_TEST

static void extension_add(X509 *x, int nid, const char *text)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, text);
    ck_assert_ptr_nonnull(e);
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
}

/* TPM manufacturer, model and version as the profile has them: a critical directoryName. */
static void tpm_san_add(X509 *x)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    GENERAL_NAME *name = GENERAL_NAME_new();
    X509_NAME *directory = X509_NAME_new();
    ASN1_OBJECT *model = OBJ_txt2obj("2.23.133.2.2", 1);
    X509_NAME_add_entry_by_OBJ(directory, model, MBSTRING_UTF8, (const unsigned char *)"M", -1, -1,
                               0);
    name->type = GEN_DIRNAME;
    name->d.directoryName = directory;
    sk_GENERAL_NAME_push(names, name);
    X509_add1_ext_i2d(x, NID_subject_alt_name, names, 1, 0);
    ASN1_OBJECT_free(model);
    GENERAL_NAMES_free(names);
}

/* A year from NOW_S on. purpose NULL: no extended key usage. */
static struct bytes certificate_make(EVP_PKEY *key, EVP_PKEY *ca_key, const char *purpose)
{
    X509 *x = X509_new();
    unsigned char *der = NULL;
    X509_set_version(x, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 5);
    ASN1_TIME_set(X509_getm_notBefore(x), NOW_S);
    ASN1_TIME_set(X509_getm_notAfter(x), NOW_S + 365 * DAY_S);
    X509_NAME_add_entry_by_txt(X509_get_issuer_name(x), "CN", MBSTRING_UTF8,
                               (const unsigned char *)"Maker", -1, -1, 0);
    X509_set_pubkey(x, key);
    if (key == ca_key) {
        X509_set_subject_name(x, X509_get_issuer_name(x));
        extension_add(x, NID_basic_constraints, "critical,CA:TRUE");
    } else {
        tpm_san_add(x);
    }
    if (purpose)
        extension_add(x, NID_ext_key_usage, purpose);
    ck_assert_int_gt(X509_sign(x, ca_key, EVP_sha256()), 0);
    int len = i2d_X509(x, &der);
    struct bytes made = bytes_of(arena_copy(&arena, der, (size_t)len), (size_t)len);
    OPENSSL_free(der);
    X509_free(x);
    return made;
}

START_TEST(an_endorsement_certificate_has_its_purpose_and_its_time)
{
    begin();
    static const struct {
        const char *purpose;
        int64_t now_s;
        enum fault_code code;
    } rows[] = {
        {"2.23.133.8.1", NOW_S + DAY_S, FAULT_NONE},
        {"clientAuth,2.23.133.8.1", NOW_S + DAY_S, FAULT_NONE},
        {"2.23.133.8.1", NOW_S - 1, FAULT_CERT_NOT_YET},
        {"2.23.133.8.1", NOW_S + 366 * DAY_S, FAULT_CERT_EXPIRED},
        {NULL, NOW_S + DAY_S, FAULT_CHAIN_INVALID},
        {"clientAuth", NOW_S + DAY_S, FAULT_CHAIN_INVALID},
        {"2.23.133.8.3", NOW_S + DAY_S, FAULT_CHAIN_INVALID},
    };
    struct tpm_public ek = golden_public("ek-p256");
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    _cleanup_(key_freep) EVP_PKEY *ca_key = NULL;
    _cleanup_(key_freep) EVP_PKEY *other = NULL;
    ck_assert_int_eq(tpm_key(&ek, &key), ERR_OK);
    ck_assert_int_eq(key_generate(KEY_P256, &ca_key), ERR_OK);
    ck_assert_int_eq(key_generate(KEY_P256, &other), ERR_OK);
    struct bytes ca = certificate_make(ca_key, ca_key, NULL);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fault f;
        struct bytes leaf = certificate_make(key, ca_key, rows[i].purpose);
        enum err e = ek_try("ek-p256", leaf, ca, rows[i].now_s, &f);
        ck_assert_msg(f.code == rows[i].code, "row %zu: %d %s", i, f.code, f.detail);
        ck_assert_int_eq(e, rows[i].code ? ERR_DENIED : ERR_OK);
    }
    struct fault f;
    struct bytes forged = certificate_make(key, other, "2.23.133.8.1");
    ck_assert_int_eq(ek_try("ek-p256", forged, ca, NOW_S + DAY_S, &f), ERR_DENIED);
    ck_assert_int_eq(f.code, FAULT_CHAIN_SIGNATURE);
    end();
}
END_TEST

SUITE("tpm_ek", a_manufacturers_certificate_is_taken_for_its_key_alone,
      intermediates_complete_a_manufacturers_chain,
      an_endorsement_certificate_has_its_purpose_and_its_time)
