#include "pki/csr.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "pki/key.h"
#include "pki/names.h"

DEFINE_CLEANUP(X509_REQ *, X509_REQ_free);
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

/* Of the SubjectPublicKeyInfo as it stands in the request. */
static enum err fingerprint_take(X509_REQ *rq, uint8_t ret_digest[SHA256_BYTES])
{
    unsigned char *der = NULL;
    int len = i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(rq), &der);
    if (len < 0)
        return ERR_NO_MEMORY;
    enum err e = digest_sha256(bytes_of(der, (size_t)len), ret_digest);
    OPENSSL_free(der);
    return e;
}

enum err csr_decode(struct arena *arena, struct bytes der, struct csr *ret_csr, struct fault *fault)
{
    _cleanup_(X509_REQ_freep) X509_REQ *rq = NULL;
    struct csr c = {0};
    enum err e = request_decode(der, &rq, fault);
    if (e)
        return e;
    EVP_PKEY *key = X509_REQ_get0_pubkey(rq);
    if (!key)
        return malformed(fault, "the public key does not parse");
    c.kind = key_kind_of(key);
    /* no signature is worth checking with a key that is refused anyhow, and a huge one is slow */
    e = c.kind ? possession_check(rq, key, fault) : ERR_OK;
    if (!e)
        e = fingerprint_take(rq, c.spki_sha256);
    if (!e)
        e = subject_take(arena, rq, &c, fault);
    if (!e)
        e = san_take(arena, rq, &c, fault);
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
