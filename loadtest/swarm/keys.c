#include "keys.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"

enum { MAX_KEY_BYTES = 1280, RSA_BITS = 2048, MAX_KEYS = 1000000, MAX_PATH_BYTES = 4096 };

struct keys {
    size_t count;
    size_t key_bytes;
    uint8_t data[]; /* key_bytes each */
};

/* PKCS#8 in DER: of P-256 always as long, of RSA up to so long, with zeros behind. */
static const struct {
    size_t bytes;
    const char *suffix; /* of the file's name */
} forms[] = {[KEYS_EC] = {138, ""}, [KEYS_RSA] = {MAX_KEY_BYTES, ".rsa"}};

DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free);
DEFINE_CLEANUP(PKCS8_PRIV_KEY_INFO *, PKCS8_PRIV_KEY_INFO_free);

static enum err key_make(enum keys_kind kind, uint8_t *out)
{
    size_t bytes = forms[kind].bytes;
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key =
        kind == KEYS_RSA ? EVP_RSA_gen(RSA_BITS) : EVP_EC_gen("P-256");
    _cleanup_(PKCS8_PRIV_KEY_INFO_freep) PKCS8_PRIV_KEY_INFO *info =
        key ? EVP_PKEY2PKCS8(key) : NULL;
    int len = info ? i2d_PKCS8_PRIV_KEY_INFO(info, NULL) : 0;
    if (len <= 0 || (size_t)len > bytes)
        return ERR_SYSTEM;
    memset(out, 0, bytes);
    return i2d_PKCS8_PRIV_KEY_INFO(info, &out) == len ? ERR_OK : ERR_SYSTEM;
}

static enum err path_make(const char *path, enum keys_kind kind, char out[MAX_PATH_BYTES])
{
    int len = snprintf(out, MAX_PATH_BYTES, "%s%s", path, forms[kind].suffix);
    return len > 0 && len < MAX_PATH_BYTES ? ERR_OK : ERR_INVALID;
}

/* What the file has; one that is missing, or not ours to trust, has none. */
static void file_read(const char *path, size_t key_bytes, struct buf *ret)
{
    buf_init(ret, (size_t)MAX_KEYS * key_bytes);
    if (file_load_private(path, ret))
        buf_reset(ret);
    ret->len -= ret->len % key_bytes;
}

/* Moves keys out of the file; how many there were. */
static enum err file_take(const char *path, struct keys *k, size_t *ret_there)
{
    _cleanup_(buf_donep) struct buf file = {0};
    file_read(path, k->key_bytes, &file);
    size_t there = file.len / k->key_bytes;
    *ret_there = there = there < k->count ? there : k->count;
    if (there == 0)
        return ERR_OK;
    size_t len = there * k->key_bytes;
    memcpy(k->data, file.data, len);
    return file_store(path, bytes_of(file.data + len, file.len - len), 0600);
}

enum err keys_take(const char *path, enum keys_kind kind, size_t count, struct keys **ret_keys)
{
    char file[MAX_PATH_BYTES];
    size_t bytes = forms[kind].bytes, there = 0;
    struct keys *k = count <= MAX_KEYS ? calloc(1, sizeof(*k) + count * bytes) : NULL;
    if (!k)
        return ERR_NO_MEMORY;
    k->count = count;
    k->key_bytes = bytes;
    enum err e = path_make(path, kind, file);
    if (!e)
        e = file_take(file, k, &there);
    for (size_t n = there; n < count && !e; n++)
        e = key_make(kind, k->data + n * bytes);
    if (e)
        free(k);
    else
        *ret_keys = k;
    return e;
}

enum err keys_make(const char *path, enum keys_kind kind, size_t count)
{
    _cleanup_(buf_donep) struct buf file = {0};
    char name[MAX_PATH_BYTES];
    uint8_t key[MAX_KEY_BYTES];
    size_t bytes = forms[kind].bytes;
    enum err e = path_make(path, kind, name);
    if (e)
        return e;
    file_read(name, bytes, &file);
    while (file.len < count * bytes && !e) {
        e = key_make(kind, key);
        buf_add(&file, key, bytes);
    }
    if (!e && file.overflow)
        e = ERR_INVALID;
    return e ? e : file_store(name, buf_bytes(&file), 0600);
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
    const unsigned char *at = k->data + n * k->key_bytes;
    return d2i_AutoPrivateKey(NULL, &at, (long)k->key_bytes);
}
