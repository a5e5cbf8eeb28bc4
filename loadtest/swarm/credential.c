#include "credential.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs7.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"

enum { MAX_ANSWER_BYTES = 512 * 1024, YEAR_S = 365 * 86400 };

DEFINE_CLEANUP(BIO *, BIO_free);
DEFINE_CLEANUP(X509_REQ *, X509_REQ_free);
DEFINE_CLEANUP(X509_NAME *, X509_NAME_free);
DEFINE_CLEANUP(X509 *, X509_free);
DEFINE_CLEANUP(PKCS7 *, PKCS7_free);
DEFINE_CLEANUP(GENERAL_NAMES *, GENERAL_NAMES_free);
DEFINE_CLEANUP(X509_STORE_CTX *, X509_STORE_CTX_free);

static X509_NAME *name_make(const char *serial)
{
    X509_NAME *name = X509_NAME_new();
    if (name && !X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                            (const unsigned char *)serial, -1, -1, 0)) {
        X509_NAME_free(name);
        return NULL;
    }
    return name;
}

static bool challenge_add(X509_REQ *rq, const char *challenge)
{
    return X509_REQ_add1_attr_by_NID(rq, NID_pkcs9_challengePassword, V_ASN1_UTF8STRING,
                                     (const unsigned char *)challenge, (int)strlen(challenge)) == 1;
}

/* challenge NULL: none. */
static X509_REQ *request_make(EVP_PKEY *key, const char *serial, const X509_NAME *subject,
                              const char *challenge)
{
    _cleanup_(X509_REQ_freep) X509_REQ *rq = X509_REQ_new();
    _cleanup_(X509_NAME_freep) X509_NAME *own =
        subject ? X509_NAME_dup(subject) : name_make(serial);
    if (!rq || !own || !X509_REQ_set_subject_name(rq, own) || !X509_REQ_set_pubkey(rq, key) ||
        (challenge && !challenge_add(rq, challenge)) || X509_REQ_sign(rq, key, EVP_sha256()) <= 0)
        return NULL;
    return TAKE_PTR(rq);
}

enum err credential_request_challenge(EVP_PKEY *key, const char *serial, const char *challenge,
                                      struct buf *ret)
{
    _cleanup_(X509_REQ_freep) X509_REQ *rq = request_make(key, serial, NULL, challenge);
    unsigned char *der = NULL;
    int len = rq ? i2d_X509_REQ(rq, &der) : 0;
    if (len <= 0)
        return ERR_SYSTEM;
    buf_add(ret, der, (size_t)len);
    OPENSSL_free(der);
    return ret->overflow ? ERR_NO_MEMORY : ERR_OK;
}

enum err credential_request(EVP_PKEY *key, const char *serial, const X509_NAME *subject,
                            struct buf *ret)
{
    _cleanup_(X509_REQ_freep) X509_REQ *rq = request_make(key, serial, subject, NULL);
    if (!rq)
        return ERR_SYSTEM;
    unsigned char *der = NULL;
    int len = i2d_X509_REQ(rq, &der);
    if (len <= 0)
        return ERR_NO_MEMORY;
    base64_encode(ret, bytes_of(der, (size_t)len));
    OPENSSL_free(der);
    return ret->overflow ? ERR_NO_MEMORY : ERR_OK;
}

enum err credential_request_pem(EVP_PKEY *key, const char *serial, struct buf *ret)
{
    _cleanup_(X509_REQ_freep) X509_REQ *rq = request_make(key, serial, NULL, NULL);
    _cleanup_(BIO_freep) BIO *out = BIO_new(BIO_s_mem());
    char *text;
    if (!rq || !out || !PEM_write_bio_X509_REQ(out, rq))
        return ERR_SYSTEM;
    long len = BIO_get_mem_data(out, &text);
    buf_add(ret, text, (size_t)len);
    return ret->overflow ? ERR_NO_MEMORY : ERR_OK;
}

/* urn:muster:PRODUCT:SERIAL among the names. */
static bool names_serial(X509 *x, const char *serial)
{
    _cleanup_(GENERAL_NAMES_freep) GENERAL_NAMES *names =
        X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    size_t want = strlen(serial);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
        if (n->type != GEN_URI)
            continue;
        const char *uri = (const char *)ASN1_STRING_get0_data(n->d.uniformResourceIdentifier);
        size_t len = (size_t)ASN1_STRING_length(n->d.uniformResourceIdentifier);
        if (len > want + 1 && strncmp(uri, "urn:muster:", 11) == 0 && uri[len - want - 1] == ':' &&
            memcmp(uri + len - want, serial, want) == 0)
            return true;
    }
    return false;
}

const char *credential_distrust(X509 *x, X509_STORE *trust, STACK_OF(X509) * between,
                                bool knows_time)
{
    _cleanup_(X509_STORE_CTX_freep) X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    if (!ctx || !X509_STORE_CTX_init(ctx, trust, x, between))
        return "out of memory";
    if (!knows_time)
        X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_NO_CHECK_TIME);
    if (X509_verify_cert(ctx) != 1)
        return X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx));
    return NULL;
}

const char *credential_check(X509 *x, EVP_PKEY *key, const char *serial, X509_STORE *trust,
                             STACK_OF(X509) * between, bool knows_time)
{
    if (X509_check_private_key(x, key) != 1)
        return "another key";
    if (serial && !names_serial(x, serial))
        return "another serial";
    return credential_distrust(x, trust, between, knows_time);
}

X509 *credential_cert_pem(struct bytes pem)
{
    _cleanup_(BIO_freep) BIO *in = BIO_new_mem_buf(pem.data, (int)pem.len);
    _cleanup_(X509_freep) X509 *x = in ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
    _cleanup_(X509_freep) X509 *more = x ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
    ERR_clear_error(); /* the end of the text is one */
    return more ? NULL : TAKE_PTR(x);
}

X509 *credential_cert_base64(struct bytes text)
{
    _cleanup_(arena_donep) struct arena arena = {0};
    struct bytes der;
    arena_init(&arena, MAX_ANSWER_BYTES);
    if (base64_decode(&arena, text, &der))
        return NULL;
    const unsigned char *at = der.data;
    _cleanup_(X509_freep) X509 *x = d2i_X509(NULL, &at, (long)der.len);
    return x && at == der.data + der.len ? TAKE_PTR(x) : NULL;
}

size_t credential_certs(struct bytes answer, X509 **ret_certs, size_t max)
{
    _cleanup_(arena_donep) struct arena arena = {0};
    struct bytes der;
    arena_init(&arena, MAX_ANSWER_BYTES);
    return base64_decode(&arena, answer, &der) ? 0 : credential_certs_der(der, ret_certs, max);
}

size_t credential_certs_der(struct bytes der, X509 **ret_certs, size_t max)
{
    size_t n = 0;
    const unsigned char *at = der.data;
    _cleanup_(PKCS7_freep) PKCS7 *p7 = d2i_PKCS7(NULL, &at, (long)der.len);
    STACK_OF(X509) *certs = p7 && PKCS7_type_is_signed(p7) ? p7->d.sign->cert : NULL;
    for (int i = 0; i < sk_X509_num(certs) && n < max; i++) {
        if (X509_up_ref(sk_X509_value(certs, i)))
            ret_certs[n++] = sk_X509_value(certs, i);
    }
    return n;
}

enum err credential_fingerprint(X509 *x, uint8_t ret[SHA256_BYTES])
{
    unsigned len = 0;
    return X509_digest(x, EVP_sha256(), ret, &len) ? ERR_OK : ERR_SYSTEM;
}

static bool extension_add(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    bool added = e && X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
    return added;
}

/* Everything but extensions and signature. */
static X509 *certificate_begin(EVP_PKEY *key, const char *cn, const X509_NAME *issuer)
{
    _cleanup_(X509_freep) X509 *x = X509_new();
    _cleanup_(X509_NAME_freep) X509_NAME *name = name_make(cn);
    if (!x || !name || !X509_set_version(x, X509_VERSION_3) ||
        !ASN1_INTEGER_set(X509_get_serialNumber(x), 1 + random()) ||
        !X509_set_subject_name(x, name) || !X509_set_issuer_name(x, issuer ? issuer : name) ||
        !X509_gmtime_adj(X509_getm_notBefore(x), -3600) ||
        !X509_gmtime_adj(X509_getm_notAfter(x), YEAR_S) || !X509_set_pubkey(x, key))
        return NULL;
    return TAKE_PTR(x);
}

X509 *credential_authority(EVP_PKEY *key, const char *name)
{
    _cleanup_(X509_freep) X509 *x = certificate_begin(key, name, NULL);
    if (!x || !extension_add(x, NID_basic_constraints, "critical,CA:TRUE") ||
        !extension_add(x, NID_key_usage, "critical,keyCertSign") ||
        X509_sign(x, key, EVP_sha256()) <= 0)
        return NULL;
    return TAKE_PTR(x);
}

X509 *credential_factory(EVP_PKEY *key, const char *serial, X509 *ca, EVP_PKEY *ca_key)
{
    _cleanup_(X509_freep) X509 *x = certificate_begin(key, serial, X509_get_subject_name(ca));
    if (!x || !extension_add(x, NID_ext_key_usage, "clientAuth") ||
        X509_sign(x, ca_key, EVP_sha256()) <= 0)
        return NULL;
    return TAKE_PTR(x);
}

X509 *credential_stranger(EVP_PKEY *key, const char *serial)
{
    _cleanup_(X509_freep) X509 *x = certificate_begin(key, serial, NULL);
    return x && X509_sign(x, key, EVP_sha256()) > 0 ? TAKE_PTR(x) : NULL;
}
