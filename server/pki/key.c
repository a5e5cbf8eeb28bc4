#include "pki/key.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>

#include "base/file.h"

enum {
    MAX_KEY_FILE_BYTES = 32 * 1024,
    MAX_EXPONENT_BITS = 32,
    MIN_EXPONENT = 65537,
    MAX_COORDINATE_BYTES = 48,
    MAX_KEY_DER_BYTES = 16384
};

DEFINE_CLEANUP(BIO *, BIO_free_all);
DEFINE_CLEANUP(BIGNUM *, BN_free);

void key_free(EVP_PKEY *key)
{
    EVP_PKEY_free(key);
}

enum err key_generate(enum key_kind kind, EVP_PKEY **ret_key)
{
    EVP_PKEY *key = NULL;
    switch (kind) {
    case KEY_P256:
        key = EVP_EC_gen("P-256");
        break;
    case KEY_P384:
        key = EVP_EC_gen("P-384");
        break;
    case KEY_RSA2048:
        key = EVP_RSA_gen(2048);
        break;
    case KEY_RSA3072:
        key = EVP_RSA_gen(3072);
        break;
    case KEY_RSA4096:
        key = EVP_RSA_gen(4096);
        break;
    case KEY_ED25519:
        key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
        break;
    }
    if (!key)
        return ERR_SYSTEM;
    *ret_key = key;
    return ERR_OK;
}

enum err key_encode_private(EVP_PKEY *key, const char *passphrase, struct buf *ret)
{
    _cleanup_(BIO_free_allp) BIO *bio = BIO_new(BIO_s_secmem());
    char *data = NULL;
    if (!bio ||
        !PEM_write_bio_PKCS8PrivateKey(bio, key, passphrase ? EVP_aes_256_cbc() : NULL, passphrase,
                                       passphrase ? (int)strlen(passphrase) : 0, NULL, NULL))
        return ERR_NO_MEMORY;
    long len = BIO_get_mem_data(bio, &data);
    buf_add(ret, data, (size_t)len);
    return ret->overflow ? ERR_NO_MEMORY : ERR_OK;
}

/* Nobody is asked on a terminal. */
static int passphrase_give(char *out, int size, int writing, void *arg)
{
    const char *passphrase = arg;
    size_t len = passphrase ? strlen(passphrase) : 0;
    (void)writing;
    if (!passphrase || len > (size_t)size)
        return -1;
    memcpy(out, passphrase, len);
    return (int)len;
}

enum err key_load_private(const char *path, const char *passphrase, EVP_PKEY **ret_key)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    buf_init(&pem, MAX_KEY_FILE_BYTES);
    enum err e = file_load_private(path, &pem);
    if (e)
        return e;
    _cleanup_(BIO_free_allp) BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    char *secret = (char *)(uintptr_t)passphrase;
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, passphrase_give, secret) : NULL;
    secret_cleanse(pem.data, pem.len);
    if (!key)
        return bio ? ERR_INVALID : ERR_NO_MEMORY;
    *ret_key = key;
    return ERR_OK;
}

static enum key_kind ec_kind(EVP_PKEY *key)
{
    char group[32];
    if (!EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof(group),
                                        NULL))
        return 0;
    if (strcmp(group, "prime256v1") == 0)
        return KEY_P256;
    return strcmp(group, "secp384r1") == 0 ? KEY_P384 : 0;
}

static enum key_kind rsa_kind(EVP_PKEY *key)
{
    _cleanup_(BN_freep) BIGNUM *exponent = NULL;
    int bits = EVP_PKEY_get_bits(key);
    if (bits < 2048 || bits > 4096 || bits % 8 != 0)
        return 0;
    if (!EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &exponent))
        return 0;
    if (!BN_is_odd(exponent) || BN_num_bits(exponent) > MAX_EXPONENT_BITS ||
        BN_get_word(exponent) < MIN_EXPONENT)
        return 0;
    if (bits < 3072)
        return KEY_RSA2048;
    return bits < 4096 ? KEY_RSA3072 : KEY_RSA4096;
}

enum err key_parse_public(struct bytes pem, EVP_PKEY **ret_key)
{
    _cleanup_(BIO_free_allp) BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
    ERR_clear_error();
    if (!key)
        return ERR_INVALID;
    *ret_key = key;
    return ERR_OK;
}

enum key_kind key_kind_of(EVP_PKEY *key)
{
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_EC:
        return ec_kind(key);
    case EVP_PKEY_RSA:
        return rsa_kind(key);
    case EVP_PKEY_ED25519:
        return KEY_ED25519;
    }
    return 0;
}

/* All of an EC SubjectPublicKeyInfo but the coordinates. */
static const uint8_t p256_head[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                    0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                    0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};
static const uint8_t p384_head[] = {0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86,
                                    0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
                                    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00, 0x04};

static enum err ec_encode(EVP_PKEY *key, bool p256, struct buf *ret)
{
    _cleanup_(BN_freep) BIGNUM *x = NULL;
    _cleanup_(BN_freep) BIGNUM *y = NULL;
    uint8_t point[2 * MAX_COORDINATE_BYTES];
    int len = p256 ? KEY_P256_BYTES : MAX_COORDINATE_BYTES;
    if (!EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_X, &x) ||
        !EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_Y, &y))
        return ERR_INVALID;
    if (BN_bn2binpad(x, point, len) != len || BN_bn2binpad(y, point + len, len) != len)
        return ERR_INVALID;
    buf_add(ret, p256 ? p256_head : p384_head, p256 ? sizeof(p256_head) : sizeof(p384_head));
    buf_add(ret, point, 2 * (size_t)len);
    return ERR_OK;
}

enum err key_decode_p256_point(const uint8_t x[KEY_P256_BYTES], const uint8_t y[KEY_P256_BYTES],
                               EVP_PKEY **ret_key)
{
    uint8_t spki[sizeof(p256_head) + 2 * KEY_P256_BYTES];
    const unsigned char *at = spki;
    memcpy(spki, p256_head, sizeof(p256_head));
    memcpy(spki + sizeof(p256_head), x, KEY_P256_BYTES);
    memcpy(spki + sizeof(p256_head) + KEY_P256_BYTES, y, KEY_P256_BYTES);
    *ret_key = d2i_PUBKEY(NULL, &at, sizeof(spki));
    ERR_clear_error();
    return *ret_key ? ERR_OK : ERR_INVALID;
}

bool key_spki_is_canonical(struct bytes spki)
{
    if (spki.len == sizeof(p256_head) + 2 * KEY_P256_BYTES)
        return memcmp(spki.data, p256_head, sizeof(p256_head)) == 0;
    return spki.len == sizeof(p384_head) + 2 * MAX_COORDINATE_BYTES &&
           memcmp(spki.data, p384_head, sizeof(p384_head)) == 0;
}

enum err key_encode_canonical(EVP_PKEY *key, struct buf *ret)
{
    enum key_kind kind = key_kind_of(key);
    unsigned char *der = NULL;
    if (kind == KEY_P256 || kind == KEY_P384)
        return ec_encode(key, kind == KEY_P256, ret);
    int len = i2d_PUBKEY(key, &der);
    if (len < 0)
        return ERR_INVALID;
    buf_add(ret, der, (size_t)len);
    OPENSSL_free(der);
    return ERR_OK;
}

enum err key_fingerprint(EVP_PKEY *key, uint8_t ret_digest[SHA256_BYTES])
{
    _cleanup_(buf_donep) struct buf der = {0};
    buf_init(&der, MAX_KEY_DER_BYTES);
    enum err e = key_encode_canonical(key, &der);
    if (!e && der.overflow)
        e = ERR_INVALID;
    return e ? e : digest_sha256(buf_bytes(&der), ret_digest);
}
