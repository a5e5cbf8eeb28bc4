#include "pki/signed.h"

#include <openssl/evp.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "pki/der.h"
#include "pki/key.h"

enum { MAX_SIGNATURE_BYTES = 512 /* RSA of 4096 bits */, FRAME_BYTES = 64 };

DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free);

static const uint8_t ecdsa_sha256[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                       0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
static const uint8_t ecdsa_sha384[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                       0x48, 0xce, 0x3d, 0x04, 0x03, 0x03};
static const uint8_t rsa_sha256[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                     0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00};
static const uint8_t ed25519[] = {0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70};

struct signed_algorithm signed_algorithm_of(EVP_PKEY *key)
{
    struct signed_algorithm a = {.digest = EVP_sha256()};
    switch (key_kind_of(key)) {
    case KEY_P256:
        a.der = bytes_of(ecdsa_sha256, sizeof(ecdsa_sha256));
        break;
    case KEY_P384:
        a.der = bytes_of(ecdsa_sha384, sizeof(ecdsa_sha384));
        a.digest = EVP_sha384();
        break;
    case KEY_RSA2048:
    case KEY_RSA3072:
    case KEY_RSA4096:
        a.der = bytes_of(rsa_sha256, sizeof(rsa_sha256));
        break;
    case KEY_ED25519:
        a.der = bytes_of(ed25519, sizeof(ed25519));
        a.digest = NULL;
        break;
    }
    return a;
}

static enum err sign(const struct signed_algorithm *algorithm, EVP_PKEY *key, struct bytes content,
                     uint8_t ret_signature[MAX_SIGNATURE_BYTES], size_t *ret_len)
{
    size_t len = MAX_SIGNATURE_BYTES;
    _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (!ctx)
        return ERR_NO_MEMORY;
    if (EVP_DigestSignInit(ctx, NULL, algorithm->digest, NULL, key) != 1 ||
        EVP_DigestSign(ctx, ret_signature, &len, content.data, content.len) != 1)
        return ERR_SYSTEM;
    *ret_len = len;
    return ERR_OK;
}

enum err signed_make(const struct signed_algorithm *algorithm, EVP_PKEY *key, struct bytes content,
                     struct arena *arena, struct bytes *ret_der)
{
    _cleanup_(buf_donep) struct buf b = {0};
    uint8_t signature[MAX_SIGNATURE_BYTES];
    size_t len = 0;
    if (algorithm->der.len == 0)
        return ERR_INVALID;
    enum err e = sign(algorithm, key, content, signature, &len);
    if (e)
        return e;
    buf_init(&b, content.len + sizeof(signature) + FRAME_BYTES);
    der_header(&b, DER_SEQUENCE, content.len + algorithm->der.len + der_size(1 + len));
    buf_add(&b, content.data, content.len);
    buf_add(&b, algorithm->der.data, algorithm->der.len);
    der_header(&b, DER_BIT_STRING, 1 + len);
    buf_add_char(&b, 0);
    buf_add(&b, signature, len);
    void *copy = b.overflow ? NULL : arena_copy(arena, b.data, b.len);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret_der = bytes_of(copy, b.len);
    return ERR_OK;
}
