#include "keys.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"

enum { KEY_BYTES = 138 /* PKCS#8 of a P-256 key in DER */, MAX_KEYS = 1000000 };

struct keys {
    size_t count;
    uint8_t data[]; /* KEY_BYTES each */
};

DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free);
DEFINE_CLEANUP(PKCS8_PRIV_KEY_INFO *, PKCS8_PRIV_KEY_INFO_free);

static enum err key_make(uint8_t out[KEY_BYTES])
{
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = EVP_EC_gen("P-256");
    _cleanup_(PKCS8_PRIV_KEY_INFO_freep) PKCS8_PRIV_KEY_INFO *info =
        key ? EVP_PKEY2PKCS8(key) : NULL;
    if (!info || i2d_PKCS8_PRIV_KEY_INFO(info, NULL) != KEY_BYTES)
        return ERR_SYSTEM;
    return i2d_PKCS8_PRIV_KEY_INFO(info, &out) == KEY_BYTES ? ERR_OK : ERR_SYSTEM;
}

/* What the file has; one that is missing, or not ours to trust, has none. */
static void file_read(const char *path, struct buf *ret)
{
    buf_init(ret, (size_t)MAX_KEYS * KEY_BYTES);
    if (file_load_private(path, ret))
        buf_reset(ret);
    ret->len -= ret->len % KEY_BYTES;
}

enum err keys_take(const char *path, size_t count, struct keys **ret_keys)
{
    _cleanup_(buf_donep) struct buf file = {0};
    struct keys *k = count <= MAX_KEYS ? calloc(1, sizeof(*k) + count * KEY_BYTES) : NULL;
    if (!k)
        return ERR_NO_MEMORY;
    file_read(path, &file);
    size_t there = file.len / KEY_BYTES < count ? file.len / KEY_BYTES : count;
    enum err e = ERR_OK;
    k->count = count;
    if (there > 0) {
        memcpy(k->data, file.data, there * KEY_BYTES);
        e = file_store(path, bytes_of(file.data + there * KEY_BYTES, file.len - there * KEY_BYTES),
                       0600);
    }
    for (size_t n = there; n < count && !e; n++)
        e = key_make(k->data + n * KEY_BYTES);
    if (e)
        free(k);
    else
        *ret_keys = k;
    return e;
}

enum err keys_make(const char *path, size_t count)
{
    _cleanup_(buf_donep) struct buf file = {0};
    uint8_t key[KEY_BYTES];
    enum err e = ERR_OK;
    file_read(path, &file);
    while (file.len < count * KEY_BYTES && !e) {
        e = key_make(key);
        buf_add(&file, key, sizeof(key));
    }
    if (!e && file.overflow)
        e = ERR_INVALID;
    return e ? e : file_store(path, buf_bytes(&file), 0600);
}

void keys_free(struct keys *k)
{
    free(k);
}

size_t keys_count(const struct keys *k)
{
    return k->count;
}

EVP_PKEY *keys_get(const struct keys *k, size_t n)
{
    const unsigned char *at = k->data + n * KEY_BYTES;
    return d2i_AutoPrivateKey(NULL, &at, KEY_BYTES);
}
