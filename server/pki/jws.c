#include "pki/jws.h"

#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <string.h>

#include "base/cleanup.h"
#include "pki/key.h"

DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free);
DEFINE_CLEANUP(ECDSA_SIG *, ECDSA_SIG_free);

/* What OpenSSL verifies: Ecdsa-Sig-Value (RFC 3279 2.2.3). The caller frees. */
static int signature_encode(struct bytes raw, unsigned char **ret_der)
{
    _cleanup_(ECDSA_SIG_freep) ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw.data, JWS_P256_BYTES, NULL);
    BIGNUM *s = BN_bin2bn(raw.data + JWS_P256_BYTES, JWS_P256_BYTES, NULL);
    if (!sig || !r || !s || !ECDSA_SIG_set0(sig, r, s)) {
        BN_free(r);
        BN_free(s);
        return -1;
    }
    return i2d_ECDSA_SIG(sig, ret_der);
}

bool jws_es256_verify(X509 *signer, struct bytes signing_input, struct bytes signature)
{
    EVP_PKEY *key = X509_get0_pubkey(signer);
    _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned char *der = NULL;
    if (!ctx || !key || key_kind_of(key) != KEY_P256 || signature.len != 2 * JWS_P256_BYTES)
        return false;
    int len = signature_encode(signature, &der);
    bool good = len > 0 && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestVerify(ctx, der, (size_t)len, signing_input.data, signing_input.len) == 1;
    OPENSSL_free(der);
    ERR_clear_error();
    return good;
}

enum err jwk_p256_fingerprint(const uint8_t x[JWS_P256_BYTES], const uint8_t y[JWS_P256_BYTES],
                              uint8_t ret_digest[SHA256_BYTES])
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    enum err e = key_decode_p256_point(x, y, &key);
    return e ? e : key_fingerprint(key, ret_digest);
}
