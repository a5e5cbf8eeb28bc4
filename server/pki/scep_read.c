/* From bytes to a message: SignedData (RFC 5652 section 5) around EnvelopedData (section 6). */
#include <openssl/cms.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <string.h>

#include "base/buf.h"
#include "base/text.h"
#include "pki/der.h"
#include "pki/key.h"
#include "pki/scep_internal.h"

DEFINE_CLEANUP(CMS_ContentInfo *, CMS_ContentInfo_free);
DEFINE_CLEANUP(ASN1_OBJECT *, ASN1_OBJECT_free);
DEFINE_CLEANUP(BIO *, BIO_free_all);

static void certs_freep(STACK_OF(X509) * *s)
{
    sk_X509_pop_free(*s, X509_free);
}

static enum err malformed(struct fault *fault, const char *what)
{
    return fault_set(fault, FAULT_SCEP_MALFORMED, "%s", what);
}

static CMS_ContentInfo *info_decode(struct bytes der, int type)
{
    const unsigned char *p = der.data;
    CMS_ContentInfo *cms = d2i_CMS_ContentInfo(NULL, &p, (long)der.len);
    if (cms && (p != der.data + der.len || OBJ_obj2nid(CMS_get0_type(cms)) != type)) {
        CMS_ContentInfo_free(cms);
        return NULL;
    }
    return cms;
}

static enum err bio_copy(struct arena *arena, BIO *bio, struct bytes *ret)
{
    char *data = NULL;
    long len = BIO_get_mem_data(bio, &data);
    void *copy = len > 0 ? arena_copy(arena, data, (size_t)len) : NULL;
    if (len > 0 && !copy)
        return ERR_NO_MEMORY;
    *ret = bytes_of(copy, len > 0 ? (size_t)len : 0);
    return ERR_OK;
}

/* Attributes, section 3.2.1: signed, each once and with one value. NULL: it is not there so. */
static const ASN1_STRING *attribute(CMS_SignerInfo *si, const char *oid, int type)
{
    _cleanup_(ASN1_OBJECT_freep) ASN1_OBJECT *object = OBJ_txt2obj(oid, 1);
    int at = object ? CMS_signed_get_attr_by_OBJ(si, object, -1) : -1;
    if (at < 0 || CMS_signed_get_attr_by_OBJ(si, object, at) >= 0)
        return NULL;
    X509_ATTRIBUTE *a = CMS_signed_get_attr(si, at);
    const ASN1_TYPE *value = X509_ATTRIBUTE_get0_type(a, 0);
    if (X509_ATTRIBUTE_count(a) != 1 || !value || value->type != type)
        return NULL;
    return value->value.asn1_string;
}

static enum err attribute_text(struct arena *arena, CMS_SignerInfo *si, const char *oid, size_t max,
                               const char **ret_text)
{
    const ASN1_STRING *s = attribute(si, oid, V_ASN1_PRINTABLESTRING);
    size_t len = s ? (size_t)ASN1_STRING_length(s) : 0;
    if (len == 0 || len > max || memchr(ASN1_STRING_get0_data(s), '\0', len))
        return ERR_INVALID;
    const char *text = arena_copy(arena, ASN1_STRING_get0_data(s), len);
    if (!text)
        return ERR_NO_MEMORY;
    if (!text_is_printable_utf8(text))
        return ERR_INVALID;
    *ret_text = text;
    return ERR_OK;
}

static enum err attributes_take(struct arena *arena, CMS_SignerInfo *si, struct scep_message *m,
                                struct fault *fault)
{
    const char *type = NULL;
    int64_t number = 0;
    enum err e =
        attribute_text(arena, si, SCEP_OID "7", SCEP_MAX_TRANSACTION_CHARS, &m->transaction);
    if (e)
        return e == ERR_INVALID ? malformed(fault, "transactionID is missing, or too long") : e;
    e = attribute_text(arena, si, SCEP_OID "2", 3, &type);
    if (e == ERR_NO_MEMORY)
        return e;
    if (e || text_parse_int(type, 0, 255, &number))
        return malformed(fault, "messageType is missing, or no number");
    const ASN1_STRING *nonce = attribute(si, SCEP_OID "5", V_ASN1_OCTET_STRING);
    size_t len = nonce ? (size_t)ASN1_STRING_length(nonce) : 0;
    if (len == 0 || len > SCEP_MAX_NONCE_BYTES)
        return malformed(fault, "senderNonce is missing, or too long");
    const void *copy = arena_copy(arena, ASN1_STRING_get0_data(nonce), len);
    if (!copy)
        return ERR_NO_MEMORY;
    m->type = (int)number;
    m->nonce = bytes_of(copy, len);
    return ERR_OK;
}

/* The signer's certificate comes first, whatever order they came in. */
static enum err certs_take(struct arena *arena, CMS_ContentInfo *cms, X509 *signer,
                           struct scep_message *m, struct fault *fault)
{
    _cleanup_(certs_freep) STACK_OF(X509) *certs = CMS_get1_certs(cms);
    int count = sk_X509_num(certs);
    enum err e = cert_encode(arena, signer, &m->certs[m->cert_count++]);
    if (count > CERT_MAX_CHAIN)
        return malformed(fault, "it has too many certificates");
    for (int i = 0; i < count && !e; i++) {
        X509 *x = sk_X509_value(certs, i);
        if (X509_cmp(x, signer) != 0)
            e = cert_encode(arena, x, &m->certs[m->cert_count++]);
    }
    return e == ERR_INVALID ? malformed(fault, "a certificate is too long") : e;
}

static bool digest_known(int nid)
{
    return nid == NID_sha256 || nid == NID_sha384 || nid == NID_sha512 || nid == NID_sha1;
}

/* RSA with PKCS #1 v1.5 (RFC 8017 8.2), which is what SCEP has, over a digest that still holds. */
static enum err algorithms_check(CMS_SignerInfo *si, const struct scep_options *options,
                                 struct scep_message *m, struct fault *fault)
{
    X509_ALGOR *digest = NULL, *signature = NULL;
    const ASN1_OBJECT *object = NULL;
    EVP_PKEY *key = NULL;
    int pair = NID_undef, kind = NID_undef;
    CMS_SignerInfo_get0_algs(si, &key, NULL, &digest, &signature);
    X509_ALGOR_get0(&object, NULL, NULL, digest);
    m->digest = OBJ_obj2nid(object);
    X509_ALGOR_get0(&object, NULL, NULL, signature);
    int nid = OBJ_obj2nid(object);
    bool rsa = nid == NID_rsaEncryption || (OBJ_find_sigid_algs(nid, &pair, &kind) &&
                                            kind == NID_rsaEncryption && pair == m->digest);
    if (!key || !(key_kind_of(key) & (KEY_RSA2048 | KEY_RSA3072 | KEY_RSA4096)))
        return fault_set(
            fault, FAULT_SCEP_ALGORITHM,
            "the signer's key is not RSA of 2048 to 4096 bits, and answers are enveloped "
            "for it");
    if (!rsa || !digest_known(m->digest) || (m->digest == NID_sha1 && !options->sha1))
        return fault_set(fault, FAULT_SCEP_ALGORITHM, "signed with %s", OBJ_nid2sn(m->digest));
    return ERR_OK;
}

static bool is_self_signed(X509 *x)
{
    return X509_NAME_cmp(X509_get_subject_name(x), X509_get_issuer_name(x)) == 0 &&
           X509_verify(x, X509_get0_pubkey(x)) == 1;
}

/* The one signer and its certificate, both borrowed from cms. */
static enum err signer_find(CMS_ContentInfo *cms, CMS_SignerInfo **ret_si, X509 **ret_signer,
                            struct fault *fault)
{
    STACK_OF(CMS_SignerInfo) *all = CMS_get0_SignerInfos(cms);
    EVP_PKEY *key = NULL;
    if (sk_CMS_SignerInfo_num(all) != 1 || CMS_set1_signers_certs(cms, NULL, 0) != 1)
        return malformed(fault, "it has not one signer, with its certificate");
    *ret_si = sk_CMS_SignerInfo_value(all, 0);
    CMS_SignerInfo_get0_algs(*ret_si, &key, ret_signer, NULL, NULL);
    return *ret_signer ? ERR_OK : malformed(fault, "the signer's certificate is missing");
}

static enum err signature_verify(CMS_ContentInfo *cms, struct arena *arena,
                                 struct bytes *ret_content, struct fault *fault)
{
    _cleanup_(BIO_free_allp) BIO *out = BIO_new(BIO_s_mem());
    if (!out)
        return ERR_NO_MEMORY;
    if (CMS_verify(cms, NULL, NULL, NULL, out, CMS_NO_SIGNER_CERT_VERIFY | CMS_BINARY) != 1)
        return malformed(fault, "its signature does not hold");
    return bio_copy(arena, out, ret_content);
}

enum err scep_read(struct arena *arena, struct bytes der, const struct scep_options *options,
                   struct scep_message *ret_message, struct fault *fault)
{
    struct scep_message m = {0};
    CMS_SignerInfo *si = NULL;
    X509 *signer = NULL;
    if (der.len == 0 || der.len > SCEP_MAX_MESSAGE_BYTES)
        return malformed(fault, "it is empty, or too long");
    _cleanup_(CMS_ContentInfo_freep) CMS_ContentInfo *cms = info_decode(der, NID_pkcs7_signed);
    if (!cms)
        return malformed(fault, "it is no SignedData in DER");
    enum err e = signer_find(cms, &si, &signer, fault);
    if (!e)
        e = attributes_take(arena, si, &m, fault);
    if (!e)
        e = algorithms_check(si, options, &m, fault);
    if (!e)
        e = signature_verify(cms, arena, &m.content, fault);
    if (!e)
        e = certs_take(arena, cms, signer, &m, fault);
    if (!e)
        e = cert_key_fingerprint(signer, m.signer_spki);
    if (e)
        return e == ERR_INVALID ? malformed(fault, "the signer's certificate") : e;
    m.self_signed = is_self_signed(signer);
    *ret_message = m;
    return ERR_OK;
}

/* The cipher of an EnvelopedData with exactly one recipient: OpenSSL does not tell it. 0: it is not
 * in the form that clients write. */
static int envelope_cipher(struct bytes der)
{
    struct der_reader outer = der_read(der), info, data, content;
    info = der_read(der_next(&outer, DER_SEQUENCE));
    (void)der_next(&info, DER_OID);
    struct der_reader explicit_ = der_read(der_next(&info, DER_CONTEXT_0));
    data = der_read(der_next(&explicit_, DER_SEQUENCE));
    (void)der_next(&data, DER_INTEGER);
    if (der_peek(&data) == DER_CONTEXT_0)
        (void)der_next(&data, DER_CONTEXT_0); /* originatorInfo */
    (void)der_next(&data, DER_SET);
    content = der_read(der_next(&data, DER_SEQUENCE));
    (void)der_next(&content, DER_OID);
    struct der_reader algorithm = der_read(der_next(&content, DER_SEQUENCE));
    struct bytes oid = der_next_whole(&algorithm, DER_OID);
    const unsigned char *p = oid.data;
    _cleanup_(ASN1_OBJECT_freep) ASN1_OBJECT *object =
        oid.len > 0 ? d2i_ASN1_OBJECT(NULL, &p, (long)oid.len) : NULL;
    return object && !algorithm.broken ? OBJ_obj2nid(object) : 0;
}

static bool cipher_allowed(int nid, const struct scep_options *options)
{
    return nid == NID_aes_128_cbc || nid == NID_aes_192_cbc || nid == NID_aes_256_cbc ||
           (nid == NID_des_ede3_cbc && options->des3);
}

/* Each would cost a private operation. */
static bool one_recipient(CMS_ContentInfo *cms)
{
    STACK_OF(CMS_RecipientInfo) *all = CMS_get0_RecipientInfos(cms);
    return sk_CMS_RecipientInfo_num(all) == 1 &&
           CMS_RecipientInfo_type(sk_CMS_RecipientInfo_value(all, 0)) == CMS_RECIPINFO_TRANS;
}

enum err scep_open(const struct scep_ra *ra, struct arena *arena,
                   const struct scep_options *options, struct scep_message *m,
                   struct bytes *ret_content, struct fault *fault)
{
    _cleanup_(CMS_ContentInfo_freep) CMS_ContentInfo *cms =
        info_decode(m->content, NID_pkcs7_enveloped);
    _cleanup_(BIO_free_allp) BIO *out = BIO_new(BIO_s_mem());
    if (!out)
        return ERR_NO_MEMORY;
    if (!cms || !one_recipient(cms))
        return malformed(fault, "what it signs is no EnvelopedData for one recipient's key");
    m->cipher = envelope_cipher(m->content);
    if (!cipher_allowed(m->cipher, options))
        return fault_set(fault, FAULT_SCEP_ALGORITHM, "enveloped with %s", OBJ_nid2sn(m->cipher));
    /* without a certificate OpenSSL goes on with a random key where the padding is wrong */
    if (CMS_decrypt(cms, scep_ra_key(ra), NULL, NULL, out, CMS_BINARY) != 1)
        return fault_set(fault, FAULT_SCEP_CHECK, "%s", "");
    enum err e = bio_copy(arena, out, ret_content);
    (void)BIO_reset(out); /* overwrites */
    return e;
}

enum err scep_issuer_and_serial(struct arena *arena, struct bytes der, struct bytes *ret_issuer,
                                struct bytes *ret_serial)
{
    struct der_reader outer = der_read(der);
    struct der_reader in = der_read(der_next(&outer, DER_SEQUENCE));
    struct bytes issuer = der_next_whole(&in, DER_SEQUENCE);
    struct bytes serial = der_next(&in, DER_INTEGER);
    if (!der_ended(&outer) || !der_ended(&in) || serial.len == 0 ||
        serial.len > CERT_SERIAL_MAX_BYTES + 1)
        return ERR_INVALID;
    if (serial.len > 1 && serial.data[0] == 0)
        serial = bytes_of(serial.data + 1, serial.len - 1);
    const void *a = arena_copy(arena, issuer.data, issuer.len);
    const void *b = arena_copy(arena, serial.data, serial.len);
    if (!a || !b)
        return ERR_NO_MEMORY;
    *ret_issuer = bytes_of(a, issuer.len);
    *ret_serial = bytes_of(b, serial.len);
    return ERR_OK;
}

bool scep_is_issuer_and_subject(struct bytes der)
{
    struct der_reader outer = der_read(der);
    struct der_reader in = der_read(der_next(&outer, DER_SEQUENCE));
    (void)der_next(&in, DER_SEQUENCE);
    (void)der_next(&in, DER_SEQUENCE);
    return der_ended(&outer) && der_ended(&in);
}
