#include "pki/csr_fast.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <string.h>

#include "pki/der.h"
#include "pki/key.h"

enum { MAX_ATTRIBUTES = 16 };

DEFINE_CLEANUP(X509_REQ *, X509_REQ_free);
DEFINE_CLEANUP(X509_NAME *, X509_NAME_free);
DEFINE_CLEANUP(X509_ATTRIBUTE *, X509_ATTRIBUTE_free);
DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free);

/* What the parts are, as slices of the DER. */
struct parts {
    struct bytes signed_part;
    struct bytes subject;
    struct bytes spki;
    struct bytes point;
    struct bytes attributes;
    struct bytes signature;
    enum key_kind kind;
    const EVP_MD *digest;
};

/* Length of an element's content, in the shortest form only, at most 65535. */
static bool length_take(struct bytes *at, size_t *ret_len)
{
    size_t first = at->data[1], skip = 2;
    if (first < 0x80) {
        *ret_len = first;
    } else if (first == 0x81 && at->len > 2 && at->data[2] >= 0x80) {
        *ret_len = at->data[2];
        skip = 3;
    } else if (first == 0x82 && at->len > 3 && at->data[2] != 0) {
        *ret_len = (size_t)at->data[2] << 8 | at->data[3];
        skip = 4;
    } else {
        return false;
    }
    *at = bytes_of(at->data + skip, at->len - skip);
    return *ret_len <= at->len;
}

/* Takes the element off the front when it has the tag: the whole of it, and its content. */
static bool element_take(struct bytes *at, int tag, struct bytes *ret_whole,
                         struct bytes *ret_content)
{
    struct bytes rest = *at;
    size_t len = 0;
    if (rest.len < 2 || rest.data[0] != tag || !length_take(&rest, &len))
        return false;
    *ret_whole = bytes_of(at->data, (size_t)(rest.data + len - at->data));
    *ret_content = bytes_of(rest.data, len);
    *at = bytes_of(rest.data + len, rest.len - len);
    return true;
}

/* AlgorithmIdentifiers of ECDSA (RFC 5758 3.2), which have no parameters. */
static const EVP_MD *digest_of(struct bytes algorithm)
{
    static const uint8_t ecdsa[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                    0x48, 0xce, 0x3d, 0x04, 0x03};
    if (algorithm.len != sizeof(ecdsa) + 1 || memcmp(algorithm.data, ecdsa, sizeof(ecdsa)) != 0)
        return NULL;
    switch (algorithm.data[sizeof(ecdsa)]) {
    case 2:
        return EVP_sha256();
    case 3:
        return EVP_sha384();
    case 4:
        return EVP_sha512();
    }
    return NULL;
}

/* CertificationRequestInfo: version 0, subject, key, attributes. */
static bool info_split(struct bytes info, struct parts *p)
{
    static const uint8_t version_0[] = {DER_INTEGER, 1, 0};
    struct bytes inner;
    if (info.len < sizeof(version_0) || memcmp(info.data, version_0, sizeof(version_0)) != 0)
        return false;
    info = bytes_of(info.data + sizeof(version_0), info.len - sizeof(version_0));
    struct bytes whole;
    if (!element_take(&info, DER_SEQUENCE, &p->subject, &inner) ||
        !element_take(&info, DER_SEQUENCE, &p->spki, &inner) ||
        !element_take(&info, DER_CONTEXT_0, &whole, &p->attributes) || info.len != 0)
        return false;
    p->kind = key_canonical_ec(p->spki, &p->point);
    return p->kind != 0;
}

static bool split(struct bytes der, struct parts *p)
{
    struct bytes whole, all, info, inner, algorithm;
    if (!element_take(&der, DER_SEQUENCE, &whole, &all) || der.len != 0 ||
        !element_take(&all, DER_SEQUENCE, &p->signed_part, &info) ||
        !element_take(&all, DER_SEQUENCE, &algorithm, &inner) ||
        !element_take(&all, DER_BIT_STRING, &whole, &p->signature) || all.len != 0)
        return false;
    p->digest = digest_of(algorithm);
    if (!p->digest || p->signature.len < 2 || p->signature.data[0] != 0)
        return false;
    p->signature = bytes_of(p->signature.data + 1, p->signature.len - 1);
    return info_split(info, p);
}

static bool subject_set(X509_REQ *rq, struct bytes subject)
{
    const unsigned char *at = subject.data;
    _cleanup_(X509_NAME_freep) X509_NAME *name = d2i_X509_NAME(NULL, &at, (long)subject.len);
    return name && at == subject.data + subject.len && X509_REQ_set_subject_name(rq, name);
}

static bool attributes_set(X509_REQ *rq, struct bytes attributes)
{
    const unsigned char *at = attributes.data, *end = attributes.data + attributes.len;
    for (int i = 0; at < end; i++) {
        _cleanup_(X509_ATTRIBUTE_freep) X509_ATTRIBUTE *a =
            i < MAX_ATTRIBUTES ? d2i_X509_ATTRIBUTE(NULL, &at, end - at) : NULL;
        if (!a || !X509_REQ_add1_attr(rq, a))
            return false;
    }
    return true;
}

/* Into the request without decoding it. */
static bool key_set(X509_REQ *rq, const struct parts *p)
{
    int curve = p->kind == KEY_P256 ? NID_X9_62_prime256v1 : NID_secp384r1;
    unsigned char *copy = OPENSSL_memdup(p->point.data, p->point.len);
    if (copy &&
        X509_PUBKEY_set0_param(X509_REQ_get_X509_PUBKEY(rq), OBJ_nid2obj(NID_X9_62_id_ecPublicKey),
                               V_ASN1_OBJECT, OBJ_nid2obj(curve), copy, (int)p->point.len))
        return true;
    OPENSSL_free(copy);
    return false;
}

static enum err signature_check(const struct parts *p)
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    enum err e = ctx ? key_from_point(p->kind, p->point, &key) : ERR_NO_MEMORY;
    if (e)
        return e == ERR_INVALID ? ERR_NOT_FOUND : e;
    if (EVP_DigestVerifyInit(ctx, NULL, p->digest, NULL, key) != 1)
        return ERR_NO_MEMORY;
    return EVP_DigestVerify(ctx, p->signature.data, p->signature.len, p->signed_part.data,
                            p->signed_part.len) == 1
               ? ERR_OK
               : ERR_DENIED;
}

enum err csr_fast_decode(struct bytes der, struct csr_fast *ret_request)
{
    struct parts p = {0};
    if (!split(der, &p))
        return ERR_NOT_FOUND;
    _cleanup_(X509_REQ_freep) X509_REQ *rq = X509_REQ_new();
    if (!rq || !key_set(rq, &p))
        return ERR_NO_MEMORY;
    if (!subject_set(rq, p.subject) || !attributes_set(rq, p.attributes))
        return ERR_NOT_FOUND;
    enum err e = signature_check(&p);
    if (e)
        return e;
    *ret_request = (struct csr_fast){TAKE_PTR(rq), p.kind, p.spki};
    return ERR_OK;
}
