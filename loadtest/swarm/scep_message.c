#include "scep_message.h"

#include <openssl/cms.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "credential.h"

enum { MAX_CSR_BYTES = 4096, MAX_CONTENT_BYTES = 32 * 1024, ONLY = -3 /* one, of one value */ };

#define OID "2.16.840.1.113733.1.9."
#define OID_TYPE OID "2"
#define OID_STATUS OID "3"
#define OID_SENDER_NONCE OID "5"
#define OID_RECIPIENT_NONCE OID "6"
#define OID_TRANSACTION OID "7"
#define OID_FAIL_INFO_TEXT "1.3.6.1.5.5.7.24.1"

#define PKCS_REQ "19"
#define CERT_REP "3"

DEFINE_CLEANUP(CMS_ContentInfo *, CMS_ContentInfo_free);
DEFINE_CLEANUP(ASN1_OBJECT *, ASN1_OBJECT_free);
DEFINE_CLEANUP(BIO *, BIO_free_all);

/* Of certificates that are borrowed. */
static void certs_freep(STACK_OF(X509) * *s)
{
    sk_X509_free(*s);
}

static STACK_OF(X509) * certs_of(X509 *x)
{
    STACK_OF(X509) *s = sk_X509_new_null();
    if (s && !sk_X509_push(s, x)) {
        sk_X509_free(s);
        return NULL;
    }
    return s;
}

static enum err cms_add(struct buf *b, CMS_ContentInfo *cms)
{
    unsigned char *der = NULL;
    int len = i2d_CMS_ContentInfo(cms, &der);
    if (len <= 0)
        return ERR_SYSTEM;
    buf_add(b, der, (size_t)len);
    OPENSSL_free(der);
    return b->overflow ? ERR_NO_MEMORY : ERR_OK;
}

/* Section 3.2.2. */
static enum err envelop(const struct scep_request *rq, struct bytes csr, struct buf *b)
{
    _cleanup_(certs_freep) STACK_OF(X509) *to = certs_of(rq->ra);
    _cleanup_(BIO_free_allp) BIO *in = BIO_new_mem_buf(csr.data, (int)csr.len);
    _cleanup_(CMS_ContentInfo_freep) CMS_ContentInfo *cms =
        to && in ? CMS_encrypt(to, in, EVP_aes_128_cbc(), CMS_BINARY) : NULL;
    return cms ? cms_add(b, cms) : ERR_SYSTEM;
}

static bool attribute_add(CMS_SignerInfo *si, const char *oid, int type, struct bytes value)
{
    _cleanup_(ASN1_OBJECT_freep) ASN1_OBJECT *object = OBJ_txt2obj(oid, 1);
    return object && CMS_signed_add1_attr_by_OBJ(si, object, type, value.data, (int)value.len) == 1;
}

/* Section 3.2.1. */
static enum err sign(const struct scep_request *rq, struct bytes envelope, struct buf *b)
{
    const unsigned flags = CMS_PARTIAL | CMS_BINARY | CMS_NOSMIMECAP;
    _cleanup_(CMS_ContentInfo_freep) CMS_ContentInfo *cms = CMS_sign(NULL, NULL, NULL, NULL, flags);
    _cleanup_(BIO_free_allp) BIO *in = BIO_new_mem_buf(envelope.data, (int)envelope.len);
    CMS_SignerInfo *si =
        cms && in ? CMS_add1_signer(cms, rq->self, rq->key, EVP_sha256(), flags) : NULL;
    if (!si || !attribute_add(si, OID_TYPE, V_ASN1_PRINTABLESTRING, bytes_text(PKCS_REQ)) ||
        !attribute_add(si, OID_SENDER_NONCE, V_ASN1_OCTET_STRING,
                       bytes_of(rq->nonce, sizeof(rq->nonce))) ||
        !attribute_add(si, OID_TRANSACTION, V_ASN1_PRINTABLESTRING, bytes_text(rq->transaction)) ||
        CMS_final(cms, in, NULL, CMS_BINARY) != 1)
        return ERR_SYSTEM;
    return cms_add(b, cms);
}

/* The key's SHA-256, as section 3.2.1.1 would have it. */
static enum err transaction_name(struct scep_request *rq)
{
    uint8_t digest[SHA256_BYTES];
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(rq->key, &der);
    enum err e = len > 0 ? digest_sha256(bytes_of(der, (size_t)len), digest) : ERR_SYSTEM;
    OPENSSL_free(der);
    for (size_t i = 0; i < SHA256_BYTES && !e; i++)
        snprintf(rq->transaction + 2 * i, 3, "%02x", digest[i]);
    return e;
}

/* What goes before the message. */
static enum err request_begin(struct scep_request *rq, const char *serial)
{
    scep_request_done(rq);
    rq->self = credential_stranger(rq->key, serial);
    enum err e = rq->self ? transaction_name(rq) : ERR_SYSTEM;
    return e ? e : secret_random(rq->nonce, sizeof(rq->nonce));
}

enum err scep_request_write(struct scep_request *rq, const char *serial, const char *challenge,
                            struct buf *b)
{
    _cleanup_(buf_donep) struct buf csr = {0};
    _cleanup_(buf_donep) struct buf envelope = {0};
    buf_init(&csr, MAX_CSR_BYTES);
    buf_init(&envelope, b->max_bytes);
    enum err e = request_begin(rq, serial);
    if (!e)
        e = credential_request_challenge(rq->key, serial, challenge, &csr);
    if (!e)
        e = envelop(rq, buf_bytes(&csr), &envelope);
    return e ? e : sign(rq, buf_bytes(&envelope), b);
}

void scep_request_done(struct scep_request *rq)
{
    X509_free(rq->self);
    rq->self = NULL;
}

static CMS_ContentInfo *cms_read(struct bytes der, int type)
{
    const unsigned char *at = der.data;
    CMS_ContentInfo *cms = d2i_CMS_ContentInfo(NULL, &at, (long)der.len);
    if (cms && (at != der.data + der.len || OBJ_obj2nid(CMS_get0_type(cms)) != type)) {
        CMS_ContentInfo_free(cms);
        return NULL;
    }
    return cms;
}

/* The value of a signed attribute that is there once. */
static struct bytes attribute(const CMS_SignerInfo *si, const char *oid, int type)
{
    _cleanup_(ASN1_OBJECT_freep) ASN1_OBJECT *object = OBJ_txt2obj(oid, 1);
    const ASN1_STRING *s = object ? CMS_signed_get0_data_by_OBJ(si, object, ONLY, type) : NULL;
    return s ? bytes_of(ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s))
             : bytes_of(NULL, 0);
}

static bool text_is(const CMS_SignerInfo *si, const char *oid, const char *text)
{
    return bytes_equal(attribute(si, oid, V_ASN1_PRINTABLESTRING), bytes_text(text));
}

/* The content, signed by the registration authority and nobody else. A refusal has none (section
 * 3.2.2), and is signed as if it had an empty one. */
static bool content_read(CMS_ContentInfo *cms, X509 *ra, BIO *out)
{
    ASN1_OCTET_STRING **content = CMS_get0_content(cms);
    bool empty = !content || !*content;
    _cleanup_(certs_freep) STACK_OF(X509) *signer = certs_of(ra);
    _cleanup_(BIO_free_allp) BIO *nothing = empty ? BIO_new_mem_buf("", 0) : NULL;
    return signer && (!empty || nothing) &&
           CMS_verify(cms, signer, NULL, nothing, out,
                      CMS_NOINTERN | CMS_NO_SIGNER_CERT_VERIFY | CMS_BINARY) == 1;
}

static struct bytes bio_bytes(BIO *b)
{
    char *data = NULL;
    long len = BIO_get_mem_data(b, &data);
    return bytes_of(data, len > 0 ? (size_t)len : 0);
}

static const char *certificate_read(const struct scep_request *rq, struct bytes content, X509 **ret)
{
    X509 *certs[2] = {0};
    _cleanup_(CMS_ContentInfo_freep) CMS_ContentInfo *cms = cms_read(content, NID_pkcs7_enveloped);
    _cleanup_(BIO_free_allp) BIO *out = BIO_new(BIO_s_mem());
    if (!cms || !out || CMS_decrypt(cms, rq->key, rq->self, NULL, out, CMS_BINARY) != 1)
        return "not enveloped for the device's key";
    size_t n = credential_certs_der(bio_bytes(out), certs, 2);
    if (n == 1) {
        *ret = certs[0];
        return NULL;
    }
    X509_free(certs[0]);
    X509_free(certs[1]);
    return "not one certificate";
}

/* "enrol.refused: why": the code alone. */
static void reason_read(const CMS_SignerInfo *si, char ret[SCEP_REASON_BYTES])
{
    struct bytes text = attribute(si, OID_FAIL_INFO_TEXT, V_ASN1_UTF8STRING);
    const uint8_t *colon = text.len > 0 ? memchr(text.data, ':', text.len) : NULL;
    int len = (int)(colon ? (size_t)(colon - text.data) : text.len);
    snprintf(ret, SCEP_REASON_BYTES, "%.*s", len, len > 0 ? (const char *)text.data : "");
}

static bool answers(const CMS_SignerInfo *si, const struct scep_request *rq)
{
    return text_is(si, OID_TYPE, CERT_REP) && text_is(si, OID_TRANSACTION, rq->transaction) &&
           bytes_equal(attribute(si, OID_RECIPIENT_NONCE, V_ASN1_OCTET_STRING),
                       bytes_of(rq->nonce, sizeof(rq->nonce)));
}

/* pkiStatus, section 3.2.1.3. */
static const char *status_take(const struct scep_request *rq, const CMS_SignerInfo *si,
                               struct bytes content, struct scep_answer *ret)
{
    if (text_is(si, OID_STATUS, "0")) {
        ret->end = SCEP_ISSUED;
        return certificate_read(rq, content, &ret->certificate);
    }
    if (content.len > 0)
        return "a refusal with a content";
    if (text_is(si, OID_STATUS, "3")) {
        ret->end = SCEP_WAITS;
        return NULL;
    }
    ret->end = SCEP_REFUSED;
    reason_read(si, ret->reason);
    return text_is(si, OID_STATUS, "2") && ret->reason[0] ? NULL : "a refusal without its reason";
}

const char *scep_answer_read(const struct scep_request *rq, struct bytes der,
                             struct scep_answer *ret_answer)
{
    struct scep_answer a = {.certificate = NULL};
    _cleanup_(BIO_free_allp) BIO *content = BIO_new(BIO_s_mem());
    _cleanup_(CMS_ContentInfo_freep) CMS_ContentInfo *cms =
        der.len > 0 && der.len <= MAX_CONTENT_BYTES ? cms_read(der, NID_pkcs7_signed) : NULL;
    STACK_OF(CMS_SignerInfo) *signers = cms ? CMS_get0_SignerInfos(cms) : NULL;
    const char *why = "not signed by the registration authority";
    if (content && sk_CMS_SignerInfo_num(signers) == 1 && content_read(cms, rq->ra, content)) {
        const CMS_SignerInfo *si = sk_CMS_SignerInfo_value(signers, 0);
        why = answers(si, rq) ? status_take(rq, si, bio_bytes(content), &a)
                              : "an answer to another request";
    }
    ERR_clear_error(); /* of this message: the next would be taken to have failed too */
    if (!why)
        *ret_answer = a;
    return why;
}
