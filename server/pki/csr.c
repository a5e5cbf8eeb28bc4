#include "pki/csr.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "base/buf.h"
#include "pki/csr_fast.h"
#include "pki/key.h"
#include "pki/names.h"

enum { MAX_CHALLENGE_BYTES = 255 /* PKCS#9 ub-challenge-password */ };

#define EST_IDENTITY_LINKING "1.2.840.113549.1.9.16.2.58"

DEFINE_CLEANUP(X509_REQ *, X509_REQ_free);
DEFINE_CLEANUP(ASN1_OBJECT *, ASN1_OBJECT_free);
DEFINE_CLEANUP(GENERAL_NAMES *, GENERAL_NAMES_free);

static void extensions_freep(STACK_OF(X509_EXTENSION) * *e)
{
    sk_X509_EXTENSION_pop_free(*e, X509_EXTENSION_free);
}

static enum err malformed(struct fault *fault, const char *why)
{
    return fault_set(fault, FAULT_CSR_MALFORMED, "%s", why);
}

static enum err request_decode(struct bytes der, X509_REQ **ret_request, struct fault *fault)
{
    const unsigned char *p = der.data;
    X509_REQ *rq = d2i_X509_REQ(NULL, &p, (long)der.len);
    if (!rq)
        return malformed(fault, "the DER is no CertificationRequest");
    if (p != der.data + der.len) {
        X509_REQ_free(rq);
        return malformed(fault, "bytes follow the request");
    }
    *ret_request = rq;
    return ERR_OK;
}

static bool digest_is_weak(const X509_REQ *rq)
{
    int digest = NID_undef;
    int algorithm = X509_REQ_get_signature_nid(rq);
    if (!OBJ_find_sigid_algs(algorithm, &digest, NULL))
        return true;
    return digest == NID_md5 || digest == NID_sha1 || digest == NID_md4 || digest == NID_md2;
}

/* RFC 2986 section 3: the request is signed with the key it carries. */
static enum err possession_check(X509_REQ *rq, EVP_PKEY *key, struct fault *fault)
{
    if (digest_is_weak(rq))
        return fault_set(fault, FAULT_CSR_SIGNATURE,
                         "unknown signature algorithm or a digest older than SHA-256");
    if (X509_REQ_verify(rq, key) != 1)
        return fault_set(fault, FAULT_CSR_SIGNATURE, "the signature does not match the key");
    return ERR_OK;
}

static enum err subject_take(struct arena *arena, X509_REQ *rq, struct csr *c, struct fault *fault)
{
    struct name_parts parts;
    const X509_NAME *subject = X509_REQ_get_subject_name(rq);
    enum err e = names_parts(arena, subject, &parts);
    if (e == ERR_INVALID)
        return malformed(fault, "a part of the subject is not printable text");
    if (!e)
        e = names_der(arena, subject, &c->subject_der);
    if (e == ERR_INVALID)
        return malformed(fault, "the subject is too long");
    if (e)
        return e;
    c->cn = parts.cn;
    c->serial_number = parts.serial_number;
    return ERR_OK;
}

static enum err san_take(struct arena *arena, X509_REQ *rq, struct csr *c, struct fault *fault)
{
    _cleanup_(extensions_freep) STACK_OF(X509_EXTENSION) *extensions = X509_REQ_get_extensions(rq);
    int critical = -1;
    _cleanup_(GENERAL_NAMES_freep) GENERAL_NAMES *names =
        X509V3_get_d2i(extensions, NID_subject_alt_name, &critical, NULL);
    if (!names && critical != -1)
        return malformed(fault,
                         "the subject alternative name does not parse or stands there twice");
    if (!names)
        return ERR_OK;
    enum err e = names_urn(arena, names, &c->urn);
    if (!e)
        e = names_san_der(arena, names, &c->san_der);
    return e == ERR_INVALID ? malformed(fault, "a name of the SAN is not printable text") : e;
}

/* An attribute's one string. ERR_NOT_FOUND when the request does not have it. */
static enum err attribute_text(struct arena *arena, X509_REQ *rq, int at, const char **ret_text)
{
    if (at < 0)
        return ERR_NOT_FOUND;
    X509_ATTRIBUTE *attribute = X509_REQ_get_attr(rq, at);
    const ASN1_TYPE *value = X509_ATTRIBUTE_get0_type(attribute, 0);
    if (X509_ATTRIBUTE_count(attribute) != 1 || !value ||
        (value->type != V_ASN1_PRINTABLESTRING && value->type != V_ASN1_UTF8STRING &&
         value->type != V_ASN1_IA5STRING && value->type != V_ASN1_T61STRING))
        return ERR_INVALID;
    size_t len = (size_t)ASN1_STRING_length(value->value.asn1_string);
    const unsigned char *data = ASN1_STRING_get0_data(value->value.asn1_string);
    if (len == 0 || len > MAX_CHALLENGE_BYTES || memchr(data, '\0', len))
        return ERR_INVALID;
    const char *text = arena_copy(arena, data, len);
    if (!text)
        return ERR_NO_MEMORY;
    *ret_text = text;
    return ERR_OK;
}

/* RFC 7030 3.5 and RFC 7894 section 3.3: where the value for POP linking stands. When both are
 * there both must be it, so they must be the same. */
static enum err challenge_take(struct arena *arena, X509_REQ *rq, struct csr *c,
                               struct fault *fault)
{
    const char *old = NULL, *linking = NULL;
    _cleanup_(ASN1_OBJECT_freep) ASN1_OBJECT *oid = OBJ_txt2obj(EST_IDENTITY_LINKING, 1);
    enum err first = attribute_text(
        arena, rq, X509_REQ_get_attr_by_NID(rq, NID_pkcs9_challengePassword, -1), &old);
    enum err second = attribute_text(arena, rq, X509_REQ_get_attr_by_OBJ(rq, oid, -1), &linking);
    if (first == ERR_NO_MEMORY || second == ERR_NO_MEMORY)
        return ERR_NO_MEMORY;
    if (first == ERR_INVALID || second == ERR_INVALID ||
        (old && linking && strcmp(old, linking) != 0))
        return malformed(
            fault, "the challengePassword is no string of at most 255 bytes, or there are two");
    c->challenge = old ? old : linking;
    return ERR_OK;
}

/* A key has one spelling: another one of the same key would be another key to the registry. */
static enum err fingerprint_take(X509_REQ *rq, EVP_PKEY *key, uint8_t ret_digest[SHA256_BYTES],
                                 struct fault *fault)
{
    _cleanup_(buf_donep) struct buf canonical = {0};
    unsigned char *der = NULL;
    buf_init(&canonical, CSR_MAX_BYTES);
    int len = i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(rq), &der);
    if (len < 0)
        return ERR_NO_MEMORY;
    enum err e = key_encode_canonical(key, &canonical);
    if (!e && !bytes_equal(bytes_of(der, (size_t)len), buf_bytes(&canonical)))
        e = fault_set(fault, FAULT_CSR_KEY,
                      "the key must be of a named curve with an uncompressed point, or RSA with "
                      "NULL parameters");
    OPENSSL_free(der);
    return e ? e : digest_sha256(buf_bytes(&canonical), ret_digest);
}

/* Kind and, after the proof of possession, fingerprint of the key. */
static enum err key_take(X509_REQ *rq, bool proven, struct csr *c, struct fault *fault)
{
    EVP_PKEY *key = X509_REQ_get0_pubkey(rq);
    if (!key)
        return malformed(fault, "the public key does not parse");
    c->kind = key_kind_of(key);
    /* no signature is worth checking with a key that is refused anyhow, and a huge one is slow */
    if (!c->kind || !proven)
        return ERR_OK;
    enum err e = possession_check(rq, key, fault);
    return e ? e : fingerprint_take(rq, key, c->spki_sha256, fault);
}

/* The rest, once the key is known. */
static enum err csr_finish(struct arena *arena, X509_REQ *rq, struct csr *c, struct fault *fault)
{
    enum err e = subject_take(arena, rq, c, fault);
    if (!e)
        e = san_take(arena, rq, c, fault);
    if (!e)
        e = challenge_take(arena, rq, c, fault);
    return e;
}

static enum err request_take(struct arena *arena, struct bytes der, bool proven,
                             struct csr *ret_csr, struct fault *fault)
{
    _cleanup_(X509_REQ_freep) X509_REQ *rq = NULL;
    struct csr c = {0};
    enum err e = request_decode(der, &rq, fault);
    if (!e)
        e = key_take(rq, proven, &c, fault);
    if (!e)
        e = csr_finish(arena, rq, &c, fault);
    if (e)
        return e;
    c.request = TAKE_PTR(rq);
    *ret_csr = c;
    return ERR_OK;
}

enum err csr_decode_general(struct arena *arena, struct bytes der, struct csr *ret_csr,
                            struct fault *fault)
{
    return request_take(arena, der, true, ret_csr, fault);
}

enum err csr_decode_unproven(struct arena *arena, struct bytes der, struct csr *ret_csr,
                             struct fault *fault)
{
    return request_take(arena, der, false, ret_csr, fault);
}

enum err csr_decode(struct arena *arena, struct bytes der, struct csr *ret_csr, struct fault *fault)
{
    struct csr_fast parts = {0};
    enum err e = csr_fast_decode(der, &parts);
    if (e == ERR_NOT_FOUND)
        return csr_decode_general(arena, der, ret_csr, fault);
    if (e == ERR_DENIED)
        return fault_set(fault, FAULT_CSR_SIGNATURE, "the signature does not match the key");
    _cleanup_(X509_REQ_freep) X509_REQ *rq = parts.request;
    struct csr c = {.kind = parts.kind};
    if (!e)
        e = digest_sha256(parts.spki, c.spki_sha256);
    if (!e)
        e = csr_finish(arena, rq, &c, fault);
    if (e)
        return e;
    c.request = TAKE_PTR(rq);
    *ret_csr = c;
    return ERR_OK;
}

void csr_done(struct csr *c)
{
    X509_REQ_free(c->request);
    *c = (struct csr){0};
}
