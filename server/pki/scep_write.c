/* From an answer to bytes. */
#include <openssl/cms.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pkcs7.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "pki/scep_internal.h"

enum { NONCE_BYTES = 16, NUMBER_CHARS = 4 };

#define OID_FAIL_INFO_TEXT "1.3.6.1.5.5.7.24.1"

DEFINE_CLEANUP(CMS_ContentInfo *, CMS_ContentInfo_free);
DEFINE_CLEANUP(ASN1_OBJECT *, ASN1_OBJECT_free);
DEFINE_CLEANUP(BIO *, BIO_free_all);
DEFINE_CLEANUP(PKCS7 *, PKCS7_free);
DEFINE_CLEANUP(X509_CRL *, X509_CRL_free);

static void certs_freep(STACK_OF(X509) * *s)
{
    sk_X509_pop_free(*s, X509_free);
}

static enum err info_encode(struct arena *arena, CMS_ContentInfo *cms, struct bytes *ret_der)
{
    int len = i2d_CMS_ContentInfo(cms, NULL);
    unsigned char *out = len > 0 ? arena_alloc(arena, (size_t)len) : NULL, *at = out;
    if (!out)
        return len > 0 ? ERR_NO_MEMORY : ERR_SYSTEM;
    if (i2d_CMS_ContentInfo(cms, &at) != len)
        return ERR_SYSTEM;
    *ret_der = bytes_of(out, (size_t)len);
    return ERR_OK;
}

/* For the signer's key, with the cipher that it chose (section 3.2.2). */
static enum err envelop(struct arena *arena, const struct scep_message *m, struct bytes content,
                        struct bytes *ret_der)
{
    _cleanup_(certs_freep) STACK_OF(X509) *to = sk_X509_new_null();
    X509 *signer = NULL;
    enum err e = to ? cert_decode(m->certs[0], &signer) : ERR_NO_MEMORY;
    if (e)
        return e;
    if (!sk_X509_push(to, signer)) {
        cert_free(signer);
        return ERR_NO_MEMORY;
    }
    const EVP_CIPHER *cipher = m->cipher ? EVP_get_cipherbynid(m->cipher) : EVP_aes_128_cbc();
    _cleanup_(BIO_free_allp) BIO *in = BIO_new_mem_buf(content.data, (int)content.len);
    _cleanup_(CMS_ContentInfo_freep) CMS_ContentInfo *cms =
        in && cipher ? CMS_encrypt(to, in, cipher, CMS_BINARY) : NULL;
    return cms ? info_encode(arena, cms, ret_der) : ERR_SYSTEM;
}

static bool attribute_add(CMS_SignerInfo *si, const char *oid, int type, struct bytes value)
{
    _cleanup_(ASN1_OBJECT_freep) ASN1_OBJECT *object = OBJ_txt2obj(oid, 1);
    return object && CMS_signed_add1_attr_by_OBJ(si, object, type, value.data, (int)value.len) == 1;
}

static bool number_add(CMS_SignerInfo *si, const char *oid, unsigned number)
{
    char text[NUMBER_CHARS];
    snprintf(text, sizeof(text), "%u", number % 1000);
    return attribute_add(si, oid, V_ASN1_PRINTABLESTRING, bytes_text(text));
}

static bool attributes_add(CMS_SignerInfo *si, const struct scep_reply *r)
{
    uint8_t nonce[NONCE_BYTES];
    bool good =
        secret_random(nonce, sizeof(nonce)) == ERR_OK &&
        number_add(si, SCEP_OID "2", SCEP_CERT_REP) &&
        number_add(si, SCEP_OID "3", (unsigned)r->status) &&
        attribute_add(si, SCEP_OID "5", V_ASN1_OCTET_STRING, bytes_of(nonce, sizeof(nonce))) &&
        attribute_add(si, SCEP_OID "6", V_ASN1_OCTET_STRING, r->message->nonce) &&
        attribute_add(si, SCEP_OID "7", V_ASN1_PRINTABLESTRING,
                      bytes_text(r->message->transaction));
    if (!good || r->status != SCEP_FAILURE)
        return good;
    return number_add(si, SCEP_OID "4", (unsigned)r->fail) &&
           attribute_add(si, OID_FAIL_INFO_TEXT, V_ASN1_UTF8STRING, bytes_text(r->fail_text));
}

/* content len 0: the encapsulated content is left out (section 3.2.2). r NULL: no attributes of
 * SCEP. */
static enum err sign(const struct scep_ra *ra, struct arena *arena, int digest,
                     struct bytes content, const struct scep_reply *r, struct bytes *ret_der)
{
    const unsigned flags = CMS_PARTIAL | CMS_BINARY | CMS_NOSMIMECAP;
    _cleanup_(CMS_ContentInfo_freep) CMS_ContentInfo *cms = CMS_sign(NULL, NULL, NULL, NULL, flags);
    _cleanup_(BIO_free_allp) BIO *in =
        BIO_new_mem_buf(content.len > 0 ? content.data : (const void *)"", (int)content.len);
    CMS_SignerInfo *si = cms && in ? CMS_add1_signer(cms, scep_ra_x509(ra), scep_ra_key(ra),
                                                     EVP_get_digestbynid(digest), flags)
                                   : NULL;
    if (!si || (r && !attributes_add(si, r)))
        return ERR_NO_MEMORY;
    if (content.len == 0)
        CMS_set_detached(cms, 1);
    if (CMS_final(cms, in, NULL, CMS_BINARY) != 1)
        return ERR_SYSTEM;
    return info_encode(arena, cms, ret_der);
}

enum err scep_write(const struct scep_ra *ra, struct arena *arena, const struct scep_reply *r,
                    struct bytes *ret_der)
{
    struct bytes envelope = {0};
    enum err e =
        r->status == SCEP_SUCCESS ? envelop(arena, r->message, r->content, &envelope) : ERR_OK;
    return e ? e : sign(ra, arena, r->message->digest, envelope, r, ret_der);
}

enum err scep_signed_certs(const struct scep_ra *ra, struct arena *arena, struct bytes certs_only,
                           struct bytes *ret_der)
{
    return sign(ra, arena, NID_sha256, certs_only, NULL, ret_der);
}

enum err scep_crl_only(struct arena *arena, struct bytes crl, struct bytes *ret_der)
{
    const unsigned char *p = crl.data;
    _cleanup_(X509_CRL_freep) X509_CRL *x = d2i_X509_CRL(NULL, &p, (long)crl.len);
    _cleanup_(PKCS7_freep) PKCS7 *p7 = PKCS7_new();
    if (!x || !p7 || !PKCS7_set_type(p7, NID_pkcs7_signed))
        return ERR_NO_MEMORY;
    p7->d.sign->contents->type = OBJ_nid2obj(NID_pkcs7_data);
    if (!PKCS7_add_crl(p7, x))
        return ERR_NO_MEMORY;
    int len = i2d_PKCS7(p7, NULL);
    unsigned char *out = len > 0 ? arena_alloc(arena, (size_t)len) : NULL, *at = out;
    if (!out || i2d_PKCS7(p7, &at) != len)
        return ERR_NO_MEMORY;
    *ret_der = bytes_of(out, (size_t)len);
    return ERR_OK;
}
