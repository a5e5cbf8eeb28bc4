/* The symmetric half: key derivation (part 1, 11.4.10), HMAC, AES-CFB. KDFa is OpenSSL's KBKDF
 * (SP 800-108, counter mode), KDFe its SSKDF (SP 800-56C, one step). */
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "base/cleanup.h"
#include "pki/tpm_wire.h"

enum { MAX_INFO_BYTES = 256, AES_BLOCK_BYTES = 16 };

DEFINE_CLEANUP(EVP_CIPHER_CTX *, EVP_CIPHER_CTX_free);
DEFINE_CLEANUP(EVP_KDF *, EVP_KDF_free);
DEFINE_CLEANUP(EVP_KDF_CTX *, EVP_KDF_CTX_free);

/* OpenSSL's parameters are not const, though these are only read. */
static OSSL_PARAM text_param(const char *name, const char *text)
{
    return OSSL_PARAM_construct_utf8_string(name, (char *)(uintptr_t)text, 0);
}

static OSSL_PARAM bytes_param(const char *name, struct bytes b)
{
    return OSSL_PARAM_construct_octet_string(name, (void *)(uintptr_t)b.data, b.len);
}

static enum err kdf_run(struct arena *arena, const char *name, const OSSL_PARAM *params, size_t len,
                        struct bytes *ret)
{
    _cleanup_(EVP_KDF_freep) EVP_KDF *kdf = EVP_KDF_fetch(NULL, name, NULL);
    _cleanup_(EVP_KDF_CTX_freep) EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    uint8_t *out = arena_alloc(arena, len);
    if (!ctx || !out)
        return ERR_NO_MEMORY;
    if (EVP_KDF_derive(ctx, out, len, params) != 1)
        return ERR_SYSTEM;
    *ret = bytes_of(out, len);
    return ERR_OK;
}

enum err tpm_kdfa(struct arena *arena, uint16_t alg, struct bytes key, const char *label,
                  struct bytes u, struct bytes v, size_t len, struct bytes *ret)
{
    struct bytes context = {0};
    struct tpm_writer w = tpm_write(arena, MAX_INFO_BYTES);
    tpm_put(&w, u);
    tpm_put(&w, v);
    enum err e = tpm_written(&w, &context);
    if (e)
        return e;
    const OSSL_PARAM params[] = {
        text_param(OSSL_KDF_PARAM_MODE, "counter"),
        text_param(OSSL_KDF_PARAM_MAC, "HMAC"),
        text_param(OSSL_KDF_PARAM_DIGEST, EVP_MD_get0_name(tpm_digest(alg))),
        bytes_param(OSSL_KDF_PARAM_KEY, key),
        bytes_param(OSSL_KDF_PARAM_SALT, bytes_text(label)), /* KBKDF adds the NUL */
        bytes_param(OSSL_KDF_PARAM_INFO, context),
        OSSL_PARAM_construct_end(),
    };
    return kdf_run(arena, "KBKDF", params, len, ret);
}

enum err tpm_kdfe(struct arena *arena, uint16_t alg, struct bytes z, const char *label,
                  struct bytes u, struct bytes v, size_t len, struct bytes *ret)
{
    struct bytes info = {0};
    struct tpm_writer w = tpm_write(arena, MAX_INFO_BYTES);
    tpm_put(&w, bytes_of(label, strlen(label) + 1));
    tpm_put(&w, u);
    tpm_put(&w, v);
    enum err e = tpm_written(&w, &info);
    if (e)
        return e;
    const OSSL_PARAM params[] = {
        text_param(OSSL_KDF_PARAM_DIGEST, EVP_MD_get0_name(tpm_digest(alg))),
        bytes_param(OSSL_KDF_PARAM_KEY, z),
        bytes_param(OSSL_KDF_PARAM_INFO, info),
        OSSL_PARAM_construct_end(),
    };
    return kdf_run(arena, "SSKDF", params, len, ret);
}

enum err tpm_hmac(struct arena *arena, uint16_t alg, struct bytes key, struct bytes in,
                  struct bytes *ret)
{
    unsigned len = 0;
    uint8_t *mac = arena_alloc(arena, EVP_MAX_MD_SIZE);
    if (!mac || key.len > INT_MAX)
        return ERR_NO_MEMORY;
    if (!HMAC(tpm_digest(alg), key.data, (int)key.len, in.data, in.len, mac, &len))
        return ERR_SYSTEM;
    *ret = bytes_of(mac, len);
    return ERR_OK;
}

enum err tpm_aes_cfb(struct arena *arena, struct bytes key, struct bytes in, struct bytes *ret)
{
    static const uint8_t zero_iv[AES_BLOCK_BYTES];
    const EVP_CIPHER *cipher = key.len == 16 ? EVP_aes_128_cfb128() : EVP_aes_256_cfb128();
    _cleanup_(EVP_CIPHER_CTX_freep) EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t *out = arena_alloc(arena, in.len + AES_BLOCK_BYTES);
    int len = 0;
    if (!ctx || !out || in.len > INT_MAX)
        return ERR_NO_MEMORY;
    if (key.len != (size_t)EVP_CIPHER_get_key_length(cipher))
        return ERR_SYSTEM;
    if (EVP_EncryptInit_ex2(ctx, cipher, key.data, zero_iv, NULL) != 1 ||
        EVP_EncryptUpdate(ctx, out, &len, in.data, (int)in.len) != 1)
        return ERR_SYSTEM;
    *ret = bytes_of(out, (size_t)len);
    return ERR_OK;
}

enum err tpm_random(struct arena *arena, size_t len, struct bytes *ret)
{
    uint8_t *out = arena_alloc(arena, len);
    if (!out)
        return ERR_NO_MEMORY;
    if (RAND_priv_bytes(out, (int)len) != 1)
        return ERR_SYSTEM;
    *ret = bytes_of(out, len);
    return ERR_OK;
}
