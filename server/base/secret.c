#include "base/secret.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

enum err secret_random(void *out, size_t len)
{
    return RAND_bytes(out, (int)len) == 1 ? ERR_OK : ERR_SYSTEM;
}

void secret_cleanse(void *p, size_t len)
{
    if (p && len > 0)
        OPENSSL_cleanse(p, len);
}

bool secret_equal(const void *a, const void *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}

enum err digest_sha256(struct bytes in, uint8_t ret_digest[SHA256_BYTES])
{
    unsigned len = 0;
    if (EVP_Digest(in.data, in.len, ret_digest, &len, EVP_sha256(), NULL) != 1 ||
        len != SHA256_BYTES)
        return ERR_SYSTEM;
    return ERR_OK;
}

enum err digest_hmac_sha256(struct bytes key, struct bytes in, uint8_t ret_mac[SHA256_BYTES])
{
    unsigned len = 0;
    if (key.len > INT_MAX ||
        !HMAC(EVP_sha256(), key.data, (int)key.len, in.data, in.len, ret_mac, &len) ||
        len != SHA256_BYTES)
        return ERR_SYSTEM;
    return ERR_OK;
}
