#include "pki/handout.h"

#include <openssl/evp.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <string.h>

#include "base/cleanup.h"
#include "pki/cert.h"
#include "pki/key.h"

enum { ITERATIONS = 10000, MAX_FILE_BYTES = 64 * 1024, PEM_ARENA_BYTES = 64 * 1024 };

DEFINE_CLEANUP(X509_REQ *, X509_REQ_free);
DEFINE_CLEANUP(X509_NAME *, X509_NAME_free);
DEFINE_CLEANUP(PKCS12 *, PKCS12_free);

enum err handout_request(EVP_PKEY *key, const char *cn, struct arena *arena, struct bytes *ret_der)
{
    _cleanup_(X509_REQ_freep) X509_REQ *rq = X509_REQ_new();
    _cleanup_(X509_NAME_freep) X509_NAME *name = X509_NAME_new();
    unsigned char *der = NULL;
    if (!rq || !name ||
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1,
                                   0) != 1 ||
        X509_REQ_set_subject_name(rq, name) != 1 || X509_REQ_set_pubkey(rq, key) != 1)
        return ERR_NO_MEMORY;
    if (X509_REQ_sign(rq, key, EVP_sha256()) <= 0)
        return ERR_SYSTEM;
    int len = i2d_X509_REQ(rq, &der);
    void *copy = len > 0 ? arena_copy(arena, der, (size_t)len) : NULL;
    OPENSSL_free(der);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret_der = bytes_of(copy, (size_t)len);
    return ERR_OK;
}

static enum err chain_parse(const char *pem, STACK_OF(X509) * chain)
{
    X509 *certs[CERT_MAX_CHAIN] = {0};
    size_t count = 0;
    enum err e = cert_parse_pem(bytes_text(pem), certs, CERT_MAX_CHAIN, &count);
    for (size_t i = 0; i < count; i++) {
        if (!e && sk_X509_push(chain, certs[i]) > 0)
            continue;
        cert_free(certs[i]);
        e = e ? e : ERR_NO_MEMORY;
    }
    return e;
}

static enum err pkcs12_write(PKCS12 *p12, struct buf *ret)
{
    unsigned char *der = NULL;
    int len = i2d_PKCS12(p12, &der);
    if (len <= 0)
        return ERR_SYSTEM;
    buf_add(ret, der, (size_t)len);
    OPENSSL_clear_free(der, (size_t)len);
    return ret->overflow ? ERR_NO_MEMORY : ERR_OK;
}

enum err handout_pkcs12(EVP_PKEY *key, struct bytes cert_der, const char *chain_pem,
                        const char *name, const char *passphrase, struct buf *ret)
{
    _cleanup_(cert_freep) X509 *cert = NULL;
    STACK_OF(X509) *chain = sk_X509_new_null();
    enum err e = chain ? cert_decode(cert_der, &cert) : ERR_NO_MEMORY;
    if (!e)
        e = chain_parse(chain_pem, chain);
    _cleanup_(PKCS12_freep) PKCS12 *p12 =
        e ? NULL
          : PKCS12_create(passphrase, name, key, cert, chain, NID_aes_256_cbc, NID_aes_256_cbc,
                          ITERATIONS, ITERATIONS, 0);
    sk_X509_pop_free(chain, X509_free);
    if (e)
        return e;
    return p12 ? pkcs12_write(p12, ret) : ERR_SYSTEM;
}

enum err handout_pem(EVP_PKEY *key, struct bytes cert_der, const char *chain_pem,
                     const char *passphrase, struct buf *ret)
{
    _cleanup_(arena_donep) struct arena arena;
    _cleanup_(buf_donep) struct buf secret = {0};
    arena_init(&arena, PEM_ARENA_BYTES);
    buf_init(&secret, MAX_FILE_BYTES);
    const char *pem = cert_pem(&arena, cert_der);
    enum err e = pem ? key_encode_private(key, passphrase, &secret) : ERR_NO_MEMORY;
    if (e)
        return e;
    buf_add_text(ret, pem);
    buf_add_text(ret, chain_pem);
    buf_add(ret, secret.data, secret.len);
    return ret->overflow ? ERR_NO_MEMORY : ERR_OK;
}
