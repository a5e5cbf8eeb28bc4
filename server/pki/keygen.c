#include "pki/keygen.h"

#include <openssl/cms.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/cleanup.h"
#include "pki/cert.h"
#include "pki/der.h"
#include "pki/key.h"

enum { MAX_KEY_ID_BYTES = 64, MAX_PRIVATE_BYTES = 8192, MAX_CIPHERS = 32 };

#define OID_DECRYPT_KEY_ID "1.2.840.113549.1.9.16.2.37"
#define OID_ASYMM_DECRYPT_KEY_ID "1.2.840.113549.1.9.16.2.54"
#define OID_KEY_PACKAGE "2.16.840.1.101.2.1.2.78.5"

DEFINE_CLEANUP(ASN1_OBJECT *, ASN1_OBJECT_free);
DEFINE_CLEANUP(PKCS8_PRIV_KEY_INFO *, PKCS8_PRIV_KEY_INFO_free);
DEFINE_CLEANUP(CMS_ContentInfo *, CMS_ContentInfo_free);
DEFINE_CLEANUP(BIO *, BIO_free_all);

static void algorithms_freep(X509_ALGORS **a)
{
    sk_X509_ALGOR_pop_free(*a, X509_ALGOR_free);
}

static enum err malformed(struct fault *fault, const char *why)
{
    return fault_set(fault, FAULT_CSR_MALFORMED, "%s", why);
}

/* The one value of an attribute; NULL when the request does not have it. */
static enum err attribute_value(const struct csr *csr, const char *oid, const ASN1_TYPE **ret_value,
                                struct fault *fault)
{
    _cleanup_(ASN1_OBJECT_freep) ASN1_OBJECT *object = OBJ_txt2obj(oid, 1);
    *ret_value = NULL;
    if (!object)
        return ERR_NO_MEMORY;
    int at = X509_REQ_get_attr_by_OBJ(csr->request, object, -1);
    if (at < 0)
        return ERR_OK;
    X509_ATTRIBUTE *attribute = X509_REQ_get_attr(csr->request, at);
    if (X509_ATTRIBUTE_count(attribute) != 1)
        return malformed(fault, "an attribute about the new key has not one value");
    *ret_value = X509_ATTRIBUTE_get0_type(attribute, 0);
    return *ret_value ? ERR_OK : malformed(fault, "an attribute about the new key does not parse");
}

static enum err key_id_take(struct arena *arena, const struct csr *csr, struct keygen_wish *w,
                            struct fault *fault)
{
    const ASN1_TYPE *symmetric = NULL, *asymmetric = NULL;
    enum err e = attribute_value(csr, OID_DECRYPT_KEY_ID, &symmetric, fault);
    if (!e)
        e = attribute_value(csr, OID_ASYMM_DECRYPT_KEY_ID, &asymmetric, fault);
    if (e)
        return e;
    w->encrypted = symmetric || asymmetric;
    if (!asymmetric || symmetric)
        return ERR_OK;
    if (asymmetric->type != V_ASN1_OCTET_STRING)
        return malformed(fault, "asymmDecryptKeyID is no OCTET STRING");
    size_t len = (size_t)ASN1_STRING_length(asymmetric->value.octet_string);
    if (len == 0 || len > MAX_KEY_ID_BYTES)
        return malformed(fault, "asymmDecryptKeyID has not 1 to 64 bytes");
    void *copy = arena_copy(arena, ASN1_STRING_get0_data(asymmetric->value.octet_string), len);
    if (!copy)
        return ERR_NO_MEMORY;
    w->key_id = bytes_of(copy, len);
    return ERR_OK;
}

/* SMIMECapabilities has the shape of a list of algorithms (RFC 8551 2.5.2). */
static enum err ciphers_take(const struct csr *csr, struct keygen_wish *w, struct fault *fault)
{
    const ASN1_TYPE *value = NULL;
    enum err e = attribute_value(csr, "1.2.840.113549.1.9.15", &value, fault);
    if (e || !value)
        return e;
    if (value->type != V_ASN1_SEQUENCE)
        return malformed(fault, "smimeCapabilities is no SEQUENCE");
    const unsigned char *at = ASN1_STRING_get0_data(value->value.sequence);
    _cleanup_(algorithms_freep) X509_ALGORS *list =
        d2i_X509_ALGORS(NULL, &at, ASN1_STRING_length(value->value.sequence));
    if (!list || sk_X509_ALGOR_num(list) > MAX_CIPHERS)
        return malformed(fault, "smimeCapabilities does not parse");
    bool aes256 = false, aes128 = false;
    for (int i = 0; i < sk_X509_ALGOR_num(list); i++) {
        const ASN1_OBJECT *object = NULL;
        X509_ALGOR_get0(&object, NULL, NULL, sk_X509_ALGOR_value(list, i));
        aes256 = aes256 || OBJ_obj2nid(object) == NID_aes_256_cbc;
        aes128 = aes128 || OBJ_obj2nid(object) == NID_aes_128_cbc;
    }
    w->aes128 = aes128 && !aes256;
    if (w->encrypted && !aes128 && !aes256)
        return fault_set(fault, FAULT_KEYGEN_CIPHER, "%d were offered", sk_X509_ALGOR_num(list));
    return ERR_OK;
}

enum err keygen_wish_take(struct arena *arena, const struct csr *csr, struct keygen_wish *ret_wish,
                          struct fault *fault)
{
    struct keygen_wish w = {.encrypted = false};
    enum err e = key_id_take(arena, csr, &w, fault);
    if (!e)
        e = ciphers_take(csr, &w, fault);
    if (!e)
        *ret_wish = w;
    return e;
}

/* The identifier in the certificate, or where it has none the one it would have (RFC 5280
 * 4.2.1.2, method 1). */
static bool identifies(struct bytes key_id, X509 *x)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    const ASN1_OCTET_STRING *ski = X509_get0_subject_key_id(x);
    if (ski &&
        bytes_equal(key_id, bytes_of(ASN1_STRING_get0_data(ski), (size_t)ASN1_STRING_length(ski))))
        return true;
    return X509_pubkey_digest(x, EVP_sha1(), digest, &len) &&
           bytes_equal(key_id, bytes_of(digest, len));
}

enum err keygen_wish_check(struct keygen_wish *wish, struct bytes client_der, struct fault *fault)
{
    _cleanup_(cert_freep) X509 *x = NULL;
    if (!wish->encrypted)
        return ERR_OK;
    if (wish->key_id.len == 0)
        return fault_set(fault, FAULT_KEYGEN_KEY_UNKNOWN, "no symmetric keys are shared here");
    if (client_der.len == 0)
        return fault_set(fault, FAULT_KEYGEN_KEY_UNKNOWN, "there is no client certificate in TLS");
    enum err e = cert_decode(client_der, &x);
    if (e)
        return e == ERR_INVALID ? fault_set(fault, FAULT_CHAIN_MALFORMED, "the leaf") : e;
    EVP_PKEY *key = X509_get0_pubkey(x);
    int id = key ? EVP_PKEY_get_base_id(key) : 0;
    if (!identifies(wish->key_id, x) || (id != EVP_PKEY_RSA && id != EVP_PKEY_EC))
        return fault_set(fault, FAULT_KEYGEN_KEY_UNKNOWN,
                         "asymmDecryptKeyID names another key than the client certificate's, or "
                         "one that cannot decrypt");
    wish->recipient = client_der;
    return ERR_OK;
}

enum err keygen_make(struct csr *csr, EVP_PKEY **ret_key)
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    enum err e = key_generate(csr->kind, &key);
    if (!e && !csr->request && !(csr->request = X509_REQ_new()))
        e = ERR_NO_MEMORY;
    if (!e && !X509_REQ_set_pubkey(csr->request, key))
        e = ERR_NO_MEMORY;
    if (!e)
        e = key_fingerprint(key, csr->spki_sha256);
    if (!e)
        *ret_key = TAKE_PTR(key);
    return e;
}

static enum err private_encode(struct arena *arena, EVP_PKEY *key, struct bytes *ret_der)
{
    _cleanup_(PKCS8_PRIV_KEY_INFO_freep) PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    int len = info ? i2d_PKCS8_PRIV_KEY_INFO(info, NULL) : -1;
    if (len <= 0 || len > MAX_PRIVATE_BYTES)
        return info ? ERR_SYSTEM : ERR_NO_MEMORY;
    unsigned char *out = arena_alloc(arena, (size_t)len), *at = out;
    if (!out)
        return ERR_NO_MEMORY;
    if (i2d_PKCS8_PRIV_KEY_INFO(info, &at) != len)
        return ERR_SYSTEM;
    *ret_der = bytes_of(out, (size_t)len);
    return ERR_OK;
}

static enum err cms_encode(struct arena *arena, CMS_ContentInfo *cms, struct bytes *ret_der)
{
    int len = i2d_CMS_ContentInfo(cms, NULL);
    unsigned char *out = len > 0 ? arena_alloc(arena, (size_t)len) : NULL, *at = out;
    if (!out)
        return ERR_NO_MEMORY;
    if (i2d_CMS_ContentInfo(cms, &at) != len)
        return ERR_SYSTEM;
    *ret_der = bytes_of(out, (size_t)len);
    return ERR_OK;
}

static enum err cms_fill(CMS_ContentInfo *cms, const char *type, struct bytes content)
{
    _cleanup_(ASN1_OBJECT_freep) ASN1_OBJECT *object = OBJ_txt2obj(type, 0);
    _cleanup_(BIO_free_allp) BIO *bio = BIO_new_mem_buf(content.data, (int)content.len);
    if (!object || !bio || !CMS_set1_eContentType(cms, object))
        return ERR_NO_MEMORY;
    return CMS_final(cms, bio, NULL, CMS_BINARY) ? ERR_OK : ERR_SYSTEM;
}

/* What a ContentInfo holds: inside an envelope the type stands outside (RFC 5652 6.1). */
static enum err content_strip(struct bytes info, struct bytes *ret_content)
{
    const unsigned char *at = info.data;
    const unsigned char *end = at + info.len;
    long len = 0;
    int tag = 0, class = 0;
    if (ASN1_get_object(&at, &len, &tag, &class, end - at) & 0x80 || tag != V_ASN1_SEQUENCE)
        return ERR_SYSTEM;
    if (ASN1_get_object(&at, &len, &tag, &class, end - at) & 0x80 || tag != V_ASN1_OBJECT)
        return ERR_SYSTEM;
    at += len;
    if (ASN1_get_object(&at, &len, &tag, &class, end - at) & 0x80 ||
        class != V_ASN1_CONTEXT_SPECIFIC || len != end - at)
        return ERR_SYSTEM;
    *ret_content = bytes_of(at, (size_t)len);
    return ERR_OK;
}

/* AsymmetricKeyPackage of one key (RFC 5958 section 2), signed by who made it. */
static enum err package_sign(struct arena *arena, struct bytes private_der,
                             const struct issuer *issuer, struct bytes *ret_der)
{
    _cleanup_(buf_donep) struct buf key = {0};
    _cleanup_(buf_donep) struct buf package = {0};
    const unsigned flags = CMS_PARTIAL | CMS_BINARY | CMS_NOSMIMECAP;
    buf_init(&key, MAX_PRIVATE_BYTES);
    buf_init(&package, 2 * MAX_PRIVATE_BYTES);
    buf_add(&key, private_der.data, private_der.len);
    der_wrap(&package, DER_SEQUENCE, &key);
    _cleanup_(CMS_ContentInfo_freep) CMS_ContentInfo *cms = CMS_sign(NULL, NULL, NULL, NULL, flags);
    enum err e = cms && !package.overflow ? ERR_OK : ERR_NO_MEMORY;
    if (!e && !CMS_add1_signer(cms, issuer_certificate(issuer), issuer_key(issuer), NULL, flags))
        e = ERR_SYSTEM;
    if (!e)
        e = cms_fill(cms, OID_KEY_PACKAGE, buf_bytes(&package));
    if (!e)
        e = cms_encode(arena, cms, ret_der);
    if (key.len > 0)
        secret_cleanse(key.data, key.len);
    if (package.len > 0)
        secret_cleanse(package.data, package.len);
    return e;
}

/* OAEP for RSA, a SHA-256 KDF for EC: OpenSSL's own choices date from SHA-1. */
static bool recipient_tune(EVP_PKEY_CTX *ctx, bool rsa)
{
    if (rsa)
        return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) > 0 &&
               EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha256()) > 0;
    return EVP_PKEY_CTX_set_ecdh_kdf_md(ctx, EVP_sha256()) > 0;
}

static enum err package_envelop(struct arena *arena, struct bytes signed_der,
                                const struct keygen_wish *wish, struct bytes *ret_der)
{
    const unsigned flags = CMS_PARTIAL | CMS_BINARY | CMS_USE_KEYID | CMS_KEY_PARAM;
    const EVP_CIPHER *cipher = wish->aes128 ? EVP_aes_128_cbc() : EVP_aes_256_cbc();
    _cleanup_(cert_freep) X509 *x = NULL;
    enum err e = cert_decode(wish->recipient, &x);
    if (e)
        return e;
    _cleanup_(CMS_ContentInfo_freep) CMS_ContentInfo *cms =
        CMS_encrypt(NULL, NULL, cipher, CMS_PARTIAL | CMS_BINARY);
    /* a certificate without the extension can only be named by issuer and serial number */
    unsigned named = X509_get0_subject_key_id(x) ? flags : flags & ~(unsigned)CMS_USE_KEYID;
    CMS_RecipientInfo *r = cms ? CMS_add1_recipient_cert(cms, x, named) : NULL;
    EVP_PKEY_CTX *ctx = r ? CMS_RecipientInfo_get0_pkey_ctx(r) : NULL;
    bool rsa = EVP_PKEY_get_base_id(X509_get0_pubkey(x)) == EVP_PKEY_RSA;
    if (!ctx || !recipient_tune(ctx, rsa))
        return ERR_SYSTEM;
    e = cms_fill(cms, "pkcs7-signedData", signed_der);
    return e ? e : cms_encode(arena, cms, ret_der);
}

enum err keygen_deliver(struct arena *arena, EVP_PKEY *key, const struct keygen_wish *wish,
                        const struct issuer *issuer, struct bytes *ret_private)
{
    struct bytes private_der = {0}, signed_der = {0};
    enum err e = private_encode(arena, key, &private_der);
    if (e || !wish->encrypted) {
        if (!e)
            *ret_private = private_der;
        return e;
    }
    e = package_sign(arena, private_der, issuer, &signed_der);
    if (!e)
        e = content_strip(signed_der, &signed_der);
    return e ? e : package_envelop(arena, signed_der, wish, ret_private);
}
