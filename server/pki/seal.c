#include "pki/seal.h"

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"
#include "pki/key.h"

enum { KEY_BYTES = 32, NONCE_BYTES = 12, TAG_BYTES = 16 };

struct sealer {
    uint8_t key[KEY_BYTES];
};

DEFINE_CLEANUP(EVP_PKEY_CTX *, EVP_PKEY_CTX_free);
DEFINE_CLEANUP(EVP_CIPHER_CTX *, EVP_CIPHER_CTX_free);

/* OAEP with SHA-1, which is what tokens have; nothing here rests on its collisions. */
static bool padding_set(EVP_PKEY_CTX *ctx)
{
    return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) > 0;
}

enum err seal_key_make(const struct signer *s, struct buf *ret)
{
    EVP_PKEY *rsa = s->ops->key_get(s);
    uint8_t key[KEY_BYTES], out[SEAL_MAX_WRAPPED_BYTES];
    size_t len = sizeof(out);
    if (!(key_kind_of(rsa) & (KEY_RSA2048 | KEY_RSA3072 | KEY_RSA4096)))
        return ERR_INVALID;
    _cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(rsa, NULL);
    enum err e = ctx ? secret_random(key, sizeof(key)) : ERR_NO_MEMORY;
    if (!e && (EVP_PKEY_encrypt_init(ctx) <= 0 || !padding_set(ctx) ||
               EVP_PKEY_encrypt(ctx, out, &len, key, sizeof(key)) <= 0))
        e = ERR_SYSTEM;
    secret_cleanse(key, sizeof(key));
    if (!e)
        buf_add(ret, out, len);
    return e ? e : ret->overflow ? ERR_NO_MEMORY : ERR_OK;
}

enum err sealer_new(const struct signer *s, struct bytes wrapped, struct sealer **ret_sealer)
{
    EVP_PKEY *rsa = s->ops->key_get(s);
    uint8_t out[SEAL_MAX_WRAPPED_BYTES];
    size_t len = sizeof(out);
    if (wrapped.len != (size_t)EVP_PKEY_get_size(rsa))
        return ERR_INVALID;
    _cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(rsa, NULL);
    struct sealer *made = malloc(sizeof(*made));
    enum err e = ctx && made ? ERR_OK : ERR_NO_MEMORY;
    if (!e && (EVP_PKEY_decrypt_init(ctx) <= 0 || !padding_set(ctx)))
        e = ERR_UNAVAILABLE;
    if (!e && (EVP_PKEY_decrypt(ctx, out, &len, wrapped.data, wrapped.len) <= 0 ||
               len != sizeof(made->key)))
        e = ERR_INVALID;
    if (!e)
        memcpy(made->key, out, len);
    secret_cleanse(out, sizeof(out));
    if (e)
        free(made);
    else
        *ret_sealer = made;
    return e;
}

void sealer_free(struct sealer *s)
{
    if (s)
        secret_cleanse(s, sizeof(*s));
    free(s);
}

enum err seal_derive(const struct sealer *s, const char *label, uint8_t ret[SHA256_BYTES])
{
    return digest_hmac_sha256(bytes_of(s->key, sizeof(s->key)), bytes_text(label), ret);
}

enum err seal_close(const struct sealer *s, const char *place, struct bytes plain, struct buf *ret)
{
    uint8_t out[NONCE_BYTES + SEAL_MAX_PLAIN_BYTES + TAG_BYTES];
    uint8_t *text = out + NONCE_BYTES;
    int len = 0;
    if (plain.len > SEAL_MAX_PLAIN_BYTES)
        return ERR_INVALID;
    _cleanup_(EVP_CIPHER_CTX_freep) EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    enum err e = ctx ? secret_random(out, NONCE_BYTES) : ERR_NO_MEMORY;
    if (e)
        return e;
    if (!EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, s->key, out) ||
        !EVP_EncryptUpdate(ctx, NULL, &len, (const uint8_t *)place, (int)strlen(place)) ||
        !EVP_EncryptUpdate(ctx, text, &len, plain.data, (int)plain.len) ||
        !EVP_EncryptFinal_ex(ctx, text + len, &len) ||
        !EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, text + plain.len))
        return ERR_SYSTEM;
    buf_add(ret, out, NONCE_BYTES + plain.len + TAG_BYTES);
    return ret->overflow ? ERR_NO_MEMORY : ERR_OK;
}

enum err seal_open(const struct sealer *s, const char *place, struct bytes sealed, struct buf *ret)
{
    uint8_t tag[TAG_BYTES], out[SEAL_MAX_PLAIN_BYTES];
    int len = 0, last = 0;
    if (sealed.len < SEAL_OVERHEAD_BYTES || sealed.len > sizeof(out) + SEAL_OVERHEAD_BYTES)
        return ERR_INVALID;
    size_t plain = sealed.len - SEAL_OVERHEAD_BYTES;
    memcpy(tag, sealed.data + NONCE_BYTES + plain, TAG_BYTES);
    _cleanup_(EVP_CIPHER_CTX_freep) EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    if (!ctx)
        return ERR_NO_MEMORY;
    bool good = EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, s->key, sealed.data) &&
                EVP_DecryptUpdate(ctx, NULL, &len, (const uint8_t *)place, (int)strlen(place)) &&
                EVP_DecryptUpdate(ctx, out, &len, sealed.data + NONCE_BYTES, (int)plain) &&
                EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) &&
                EVP_DecryptFinal_ex(ctx, out + len, &last);
    if (good)
        buf_add(ret, out, plain);
    secret_cleanse(out, sizeof(out));
    if (!good)
        return ERR_INVALID;
    return ret->overflow ? ERR_NO_MEMORY : ERR_OK;
}
