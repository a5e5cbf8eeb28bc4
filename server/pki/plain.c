#include "pki/plain.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "pki/der.h"

enum { UNCOMPRESSED = 0x04 };

DEFINE_CLEANUP(EVP_PKEY_CTX *, EVP_PKEY_CTX_free);
DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free);

/* AlgorithmIdentifiers of the two kinds of keys, whole. */
static const uint8_t p256_algorithm[] = {0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                         0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
                                         0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
static const uint8_t p384_algorithm[] = {0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d,
                                         0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22};

static const struct curve {
    enum key_kind kind;
    const char *name;
    struct bytes algorithm;
    size_t point_bytes;
} curves[] = {
    {KEY_P256, "prime256v1", {p256_algorithm, sizeof(p256_algorithm)}, 65},
    {KEY_P384, "secp384r1", {p384_algorithm, sizeof(p384_algorithm)}, 97},
};

/* A key without a point for each curve, made once and never changed: making one takes as long as
 * a signature. */
static EVP_PKEY *templates[ARRAY_LEN(curves)];
static pthread_once_t templates_once = PTHREAD_ONCE_INIT;

static EVP_PKEY *template_make(const char *curve_name)
{
    EVP_PKEY *key = NULL;
    char name[16];
    snprintf(name, sizeof(name), "%s", curve_name);
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, name, 0),
                           OSSL_PARAM_construct_end()};
    _cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    if (!ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEY_PARAMETERS, params) != 1)
        return NULL;
    return key;
}

static void templates_make(void)
{
    for (size_t i = 0; i < ARRAY_LEN(curves); i++)
        templates[i] = template_make(curves[i].name);
}

const EVP_MD *plain_digest(struct bytes algorithm)
{
    static const uint8_t ecdsa_with_sha2[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03};
    if (algorithm.len != sizeof(ecdsa_with_sha2) + 1 ||
        memcmp(algorithm.data, ecdsa_with_sha2, sizeof(ecdsa_with_sha2)) != 0)
        return NULL;
    switch (algorithm.data[sizeof(ecdsa_with_sha2)]) {
    case 2:
        return EVP_sha256();
    case 3:
        return EVP_sha384();
    case 4:
        return EVP_sha512();
    }
    return NULL;
}

struct bytes plain_bits(struct bytes bits)
{
    struct bytes none = {0};
    return bits.len > 1 && bits.data[0] == 0 ? bytes_of(bits.data + 1, bits.len - 1) : none;
}

bool plain_key(struct bytes spki, enum key_kind *ret_kind, EVP_PKEY **ret_key)
{
    struct der_reader outer = der_read(spki);
    struct der_reader inner = der_read(der_next(&outer, DER_SEQUENCE));
    struct bytes algorithm = der_next_whole(&inner, DER_SEQUENCE);
    struct bytes point = plain_bits(der_next(&inner, DER_BIT_STRING));
    if (!der_ended(&outer) || !der_ended(&inner) || point.len == 0 || point.data[0] != UNCOMPRESSED)
        return false;
    size_t i = 0;
    while (i < ARRAY_LEN(curves) &&
           (!bytes_equal(algorithm, curves[i].algorithm) || point.len != curves[i].point_bytes))
        i++;
    if (i == ARRAY_LEN(curves) || pthread_once(&templates_once, templates_make) || !templates[i])
        return false;
    _cleanup_(key_freep) EVP_PKEY *key = EVP_PKEY_new();
    if (!key || EVP_PKEY_copy_parameters(key, templates[i]) != 1 ||
        EVP_PKEY_set1_encoded_public_key(key, point.data, point.len) != 1)
        return false;
    *ret_kind = curves[i].kind;
    *ret_key = TAKE_PTR(key);
    return true;
}

bool plain_verify(EVP_PKEY *key, const EVP_MD *digest, struct bytes signature, struct bytes of)
{
    _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    return ctx && EVP_DigestVerifyInit(ctx, NULL, digest, NULL, key) == 1 &&
           EVP_DigestVerify(ctx, signature.data, signature.len, of.data, of.len) == 1;
}
