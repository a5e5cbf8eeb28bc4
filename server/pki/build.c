#include "pki/build.h"
#include <openssl/bn.h>

#include "base/cleanup.h"
#include "base/secret.h"
#include "pki/cert.h"
#include "pki/key.h"

DEFINE_CLEANUP(BIGNUM *, BN_free);
DEFINE_CLEANUP(ASN1_OCTET_STRING *, ASN1_OCTET_STRING_free);
DEFINE_CLEANUP(X509_EXTENSION *, X509_EXTENSION_free);

/* The first bit is cleared, so that 20 bytes stay positive, the second set, so that they stay 20.
 */
enum err build_serial_number(uint8_t ret_serial[BUILD_SERIAL_BYTES])
{
    uint8_t raw[BUILD_SERIAL_BYTES];
    if (secret_random(raw, sizeof(raw)))
        return ERR_SYSTEM;
    raw[0] = (uint8_t)((raw[0] & 0x7f) | 0x40);
    memcpy(ret_serial, raw, sizeof(raw));
    return ERR_OK;
}

enum err build_begin_as(X509 *x, int64_t not_before_s, int64_t not_after_s,
                        const uint8_t serial[BUILD_SERIAL_BYTES])
{
    _cleanup_(BN_freep) BIGNUM *n = BN_bin2bn(serial, BUILD_SERIAL_BYTES, NULL);
    if (!n || !BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)) ||
        !X509_set_version(x, X509_VERSION_3) ||
        !ASN1_TIME_set(X509_getm_notBefore(x), not_before_s) ||
        !ASN1_TIME_set(X509_getm_notAfter(x), not_after_s))
        return ERR_NO_MEMORY;
    return ERR_OK;
}

enum err build_begin(X509 *x, int64_t not_before_s, int64_t not_after_s,
                     uint8_t ret_serial[BUILD_SERIAL_BYTES])
{
    enum err e = build_serial_number(ret_serial);
    return e ? e : build_begin_as(x, not_before_s, not_after_s, ret_serial);
}

enum err build_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer ? issuer : x, x, NULL, NULL, 0);
    _cleanup_(X509_EXTENSION_freep) X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    if (!e)
        return ERR_INVALID;
    return X509_add_ext(x, e, -1) ? ERR_OK : ERR_NO_MEMORY;
}

enum err build_extension_der(X509 *x, int nid, bool critical, struct bytes der)
{
    _cleanup_(ASN1_OCTET_STRING_freep) ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
    if (!value || !ASN1_OCTET_STRING_set(value, der.data, (int)der.len))
        return ERR_NO_MEMORY;
    _cleanup_(X509_EXTENSION_freep) X509_EXTENSION *e =
        X509_EXTENSION_create_by_NID(NULL, nid, critical, value);
    return e && X509_add_ext(x, e, -1) ? ERR_OK : ERR_NO_MEMORY;
}

enum err build_sign(X509 *x, EVP_PKEY *key, struct arena *arena, struct bytes *ret_der)
{
    const EVP_MD *md = EVP_sha256();
    enum key_kind kind = key_kind_of(key);
    if (kind == KEY_ED25519)
        md = NULL;
    else if (kind == KEY_P384)
        md = EVP_sha384();
    if (X509_sign(x, key, md) <= 0)
        return ERR_SYSTEM;
    return cert_encode(arena, x, ret_der);
}
