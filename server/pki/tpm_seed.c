/* Sharing a seed with a storage key (part 1, annexes B.10 and C.6), and what is wrapped under it.
 */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

#include "pki/key.h"
#include "pki/tpm_wire.h"

enum { SIZE_BYTES = 2, MAX_SECRET_BYTES = SIZE_BYTES + TPM_MAX_RSA_BYTES };

DEFINE_CLEANUP(EVP_PKEY_CTX *, EVP_PKEY_CTX_free);
DEFINE_CLEANUP(BIGNUM *, BN_free);

/* The label of OAEP has its NUL. */
static bool oaep_set(EVP_PKEY_CTX *ctx, const EVP_MD *md, const char *label)
{
    int len = (int)strlen(label) + 1;
    char *copy = OPENSSL_memdup(label, (size_t)len);
    if (copy && EVP_PKEY_encrypt_init(ctx) == 1 &&
        EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1 &&
        EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md) == 1 && EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) == 1 &&
        EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, copy, len) == 1)
        return true;
    OPENSSL_free(copy);
    return false;
}

static enum err rsa_share(struct arena *arena, EVP_PKEY *key, uint16_t alg, const char *label,
                          struct bytes *ret_seed, struct tpm_writer *secret)
{
    _cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    uint8_t ciphertext[TPM_MAX_RSA_BYTES];
    size_t len = sizeof(ciphertext);
    enum err e = tpm_random(arena, tpm_digest_bytes(alg), ret_seed);
    if (e)
        return e;
    if (!ctx || !oaep_set(ctx, tpm_digest(alg), label) ||
        EVP_PKEY_encrypt(ctx, ciphertext, &len, ret_seed->data, ret_seed->len) != 1) {
        ERR_clear_error();
        return ERR_SYSTEM;
    }
    tpm_put_2b(secret, bytes_of(ciphertext, len));
    return ERR_OK;
}

/* A coordinate in the full size of the field. */
static enum err coordinate(struct arena *arena, EVP_PKEY *key, const char *which, size_t len,
                           struct bytes *ret)
{
    _cleanup_(BN_freep) BIGNUM *n = NULL;
    uint8_t *out = arena_alloc(arena, len);
    if (!out)
        return ERR_NO_MEMORY;
    if (!EVP_PKEY_get_bn_param(key, which, &n) || BN_bn2binpad(n, out, (int)len) != (int)len)
        return ERR_SYSTEM;
    *ret = bytes_of(out, len);
    return ERR_OK;
}

/* The x coordinate of the point that both ends arrive at. */
static enum err agree(struct arena *arena, EVP_PKEY *mine, EVP_PKEY *theirs, size_t len,
                      struct bytes *ret_z)
{
    _cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(mine, NULL);
    uint8_t *z = arena_alloc(arena, len);
    size_t got = len;
    if (!z)
        return ERR_NO_MEMORY;
    if (!ctx || EVP_PKEY_derive_init(ctx) != 1 || EVP_PKEY_derive_set_peer(ctx, theirs) != 1 ||
        EVP_PKEY_derive(ctx, z, &got) != 1 || got != len)
        return ERR_SYSTEM;
    *ret_z = bytes_of(z, len);
    return ERR_OK;
}

static enum err ecc_share(struct arena *arena, EVP_PKEY *key, const struct tpm_public *parent,
                          const char *label, struct bytes *ret_seed, struct tpm_writer *secret)
{
    size_t len = 0;
    struct bytes z = {0}, x = {0}, y = {0}, parent_x = {0};
    const char *curve = tpm_curve(parent->curve, &len);
    _cleanup_(key_freep) EVP_PKEY *ephemeral = EVP_EC_gen(curve);
    if (!ephemeral)
        return ERR_SYSTEM;
    enum err e = agree(arena, ephemeral, key, len, &z);
    if (!e)
        e = coordinate(arena, ephemeral, OSSL_PKEY_PARAM_EC_PUB_X, len, &x);
    if (!e)
        e = coordinate(arena, ephemeral, OSSL_PKEY_PARAM_EC_PUB_Y, len, &y);
    if (!e)
        e = coordinate(arena, key, OSSL_PKEY_PARAM_EC_PUB_X, len, &parent_x);
    if (e)
        return e;
    tpm_put_u16(secret, (unsigned)(2 * (SIZE_BYTES + len)));
    tpm_put_2b(secret, x);
    tpm_put_2b(secret, y);
    return tpm_kdfe(arena, parent->name_alg, z, label, x, parent_x,
                    tpm_digest_bytes(parent->name_alg), ret_seed);
}

enum err tpm_seed_share(struct arena *arena, const struct tpm_public *parent, const char *label,
                        struct bytes *ret_seed, struct bytes *ret_secret)
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    struct bytes seed = {0};
    struct tpm_writer secret = tpm_write(arena, MAX_SECRET_BYTES);
    enum err e = tpm_key(parent, &key);
    if (!e)
        e = parent->type == TPM_ALG_RSA
                ? rsa_share(arena, key, parent->name_alg, label, &seed, &secret)
                : ecc_share(arena, key, parent, label, &seed, &secret);
    if (!e)
        e = tpm_written(&secret, ret_secret);
    if (!e)
        *ret_seed = seed;
    return e;
}

/* The HMAC that binds what is encrypted to the object's name. */
static enum err integrity(struct arena *arena, uint16_t alg, struct bytes seed, struct bytes name,
                          struct bytes encrypted, struct bytes *ret_mac)
{
    const struct bytes none = {0};
    struct bytes key = {0}, in = {0};
    struct tpm_writer w = tpm_write(arena, encrypted.len + name.len);
    tpm_put(&w, encrypted);
    tpm_put(&w, name);
    enum err e = tpm_written(&w, &in);
    if (!e)
        e = tpm_kdfa(arena, alg, seed, "INTEGRITY", none, none, tpm_digest_bytes(alg), &key);
    return e ? e : tpm_hmac(arena, alg, key, in, ret_mac);
}

enum err tpm_outer_wrap(struct arena *arena, const struct tpm_public *parent, struct bytes seed,
                        struct bytes name, struct bytes plain, struct bytes *ret_wrapped)
{
    const struct bytes none = {0};
    struct bytes key = {0}, encrypted = {0}, mac = {0};
    uint16_t alg = parent->name_alg;
    enum err e = tpm_kdfa(arena, alg, seed, "STORAGE", name, none, parent->sym_bits / 8, &key);
    if (!e)
        e = tpm_aes_cfb(arena, key, plain, &encrypted);
    if (!e)
        e = integrity(arena, alg, seed, name, encrypted, &mac);
    if (e)
        return e;
    size_t len = SIZE_BYTES + mac.len + encrypted.len;
    struct tpm_writer w = tpm_write(arena, SIZE_BYTES + len);
    tpm_put_u16(&w, (unsigned)len);
    tpm_put_2b(&w, mac);
    tpm_put(&w, encrypted);
    return tpm_written(&w, ret_wrapped);
}
