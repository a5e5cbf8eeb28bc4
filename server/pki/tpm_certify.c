/* Whether a certification binds a key to a TPM (part 3, 18.2). */
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "pki/key.h"
#include "pki/tpm_wire.h"

enum { MAX_ECDSA_DER_BYTES = 2 * (TPM_MAX_ECC_BYTES + 3) + 3 };

DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free);
DEFINE_CLEANUP(ECDSA_SIG *, ECDSA_SIG_free);

static bool same(struct bytes a, struct bytes b)
{
    return a.len == b.len && a.len > 0 && secret_equal(a.data, b.data, a.len);
}

/* r and s in the DER that OpenSSL reads; 0: out of memory. */
static size_t ecdsa_encode(const struct tpm_signature *s, uint8_t der[MAX_ECDSA_DER_BYTES])
{
    _cleanup_(ECDSA_SIG_freep) ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r_number = BN_bin2bn(s->r.data, (int)s->r.len, NULL);
    BIGNUM *s_number = BN_bin2bn(s->s.data, (int)s->s.len, NULL);
    unsigned char *at = der;
    if (!sig || !r_number || !s_number || !ECDSA_SIG_set0(sig, r_number, s_number)) {
        BN_free(r_number);
        BN_free(s_number);
        return 0;
    }
    int len = i2d_ECDSA_SIG(sig, NULL);
    if (len <= 0 || len > MAX_ECDSA_DER_BYTES)
        return 0;
    return (size_t)i2d_ECDSA_SIG(sig, &at);
}

static bool signature_holds(EVP_PKEY *key, const struct tpm_signature *s, struct bytes of)
{
    _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pctx = NULL; /* the context's own */
    uint8_t der[MAX_ECDSA_DER_BYTES];
    struct bytes signature = s->rsa;
    if (s->scheme == TPM_ALG_ECDSA)
        signature = bytes_of(der, ecdsa_encode(s, der));
    bool good = ctx && EVP_DigestVerifyInit(ctx, &pctx, tpm_digest(s->hash), NULL, key) == 1 &&
                (s->scheme != TPM_ALG_RSAPSS ||
                 (EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) == 1 &&
                  EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_AUTO) == 1)) &&
                EVP_DigestVerify(ctx, signature.data, signature.len, of.data, of.len) == 1;
    ERR_clear_error();
    return good;
}

static enum err signature_verify(const struct tpm_public *ak, struct bytes signature,
                                 struct bytes of, const char **ret_why)
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    struct tpm_signature s = {0};
    enum err e = tpm_signature_decode(signature, &s, ret_why);
    if (e)
        return e;
    if (s.scheme != ak->scheme || s.hash != ak->scheme_hash)
        return tpm_refuse(ret_why, "the signature is not of the attestation key's scheme");
    e = tpm_key(ak, &key);
    if (e == ERR_INVALID)
        return tpm_refuse(ret_why, "the attestation key is no point of its curve, or no RSA key");
    if (!e && !signature_holds(key, &s, of))
        e = tpm_refuse(ret_why, "the attestation key did not make the signature");
    return e;
}

/* The signature first: until it holds, nothing else is worth a word. */
static enum err attest_verify(const struct tpm_certification *c, const char **ret_why)
{
    struct tpm_attest a = {0};
    enum err e = tpm_attest_decode(c->attest, &a, ret_why);
    if (!e)
        e = signature_verify(c->ak, c->signature, c->attest, ret_why);
    if (e)
        return e;
    if (!same(a.extra_data, c->nonce))
        return tpm_refuse(ret_why, "the attestation is for another nonce");
    if (!same(a.name, tpm_name(c->key)))
        return tpm_refuse(ret_why, "the attestation is of another key");
    return ERR_OK;
}

enum err tpm_certify_verify(const struct tpm_certification *c,
                            uint8_t ret_fingerprint[SHA256_BYTES], const char **ret_why)
{
    enum err e = tpm_check_attestation_key(c->ak, ret_why);
    if (!e)
        e = tpm_check_bound_key(c->key, ret_why);
    if (!e)
        e = attest_verify(c, ret_why);
    if (e)
        return e;
    e = tpm_spki_fingerprint(c->key, ret_fingerprint);
    if (e == ERR_INVALID)
        return tpm_refuse(ret_why, "the key is no point of its curve, or no RSA key");
    return e;
}
