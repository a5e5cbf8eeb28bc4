/* From a public area to a key of OpenSSL's. */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <string.h>

#include "pki/key.h"
#include "pki/tpm_wire.h"

enum { UNCOMPRESSED = 0x04 };

DEFINE_CLEANUP(EVP_PKEY_CTX *, EVP_PKEY_CTX_free);
DEFINE_CLEANUP(OSSL_PARAM_BLD *, OSSL_PARAM_BLD_free);
DEFINE_CLEANUP(OSSL_PARAM *, OSSL_PARAM_free);
DEFINE_CLEANUP(BIGNUM *, BN_free);

/* Checks a point against its curve. */
static EVP_PKEY *key_from(const char *type, OSSL_PARAM_BLD *bld)
{
    _cleanup_(OSSL_PARAM_freep) OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(bld);
    _cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;
    if (!params || !ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        return NULL;
    return key;
}

static EVP_PKEY *rsa_key(const struct tpm_public *p)
{
    _cleanup_(OSSL_PARAM_BLD_freep) OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    _cleanup_(BN_freep) BIGNUM *n = BN_bin2bn(p->modulus.data, (int)p->modulus.len, NULL);
    _cleanup_(BN_freep) BIGNUM *e = BN_new();
    if (!bld || !n || !e || !BN_set_word(e, p->rsa_exponent) ||
        !OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n) ||
        !OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e))
        return NULL;
    return key_from("RSA", bld);
}

/* Coordinates may come without their leading zeros. */
static EVP_PKEY *ecc_key(const struct tpm_public *p)
{
    uint8_t point[1 + 2 * TPM_MAX_ECC_BYTES] = {UNCOMPRESSED};
    size_t len = 0;
    const char *curve = tpm_curve(p->curve, &len);
    _cleanup_(OSSL_PARAM_BLD_freep) OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    if (!curve || !bld)
        return NULL;
    memcpy(point + 1 + len - p->x.len, p->x.data, p->x.len);
    memcpy(point + 1 + 2 * len - p->y.len, p->y.data, p->y.len);
    if (!OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, curve, 0) ||
        !OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * len))
        return NULL;
    return key_from("EC", bld);
}

enum err tpm_key(const struct tpm_public *p, EVP_PKEY **ret_key)
{
    _cleanup_(key_freep) EVP_PKEY *key = p->type == TPM_ALG_RSA ? rsa_key(p) : ecc_key(p);
    if (!key || key_kind_of(key) == 0) {
        ERR_clear_error();
        return ERR_INVALID;
    }
    *ret_key = TAKE_PTR(key);
    return ERR_OK;
}

enum err tpm_spki_fingerprint(const struct tpm_public *p, uint8_t ret_digest[SHA256_BYTES])
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    enum err e = tpm_key(p, &key);
    return e ? e : key_fingerprint(key, ret_digest);
}
