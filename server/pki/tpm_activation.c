/* An HMAC key for a TPM to import (part 1, 23.3): wrapped twice, the inner key in a credential. */
#include <openssl/evp.h>

#include "pki/tpm_wire.h"

enum {
    SIZE_BYTES = 2,
    ALG_KEYEDHASH = 0x0008,
    ALG_HMAC = 0x0005,
    USER_WITH_AUTH = 1 << 6,
    NO_DA = 1 << 10,
    SIGN = 1 << 18,
    INNER_KEY_BYTES = 16, /* Azure's C and C# SDKs know AES-128 only */
    MAX_OBJECT_BYTES = 256,
    MAX_BLOB_BYTES = 4096
};

/* The key as an object: its sensitive and public areas and its name. */
struct hmac_object {
    struct bytes sensitive; /* TPM2B_SENSITIVE */
    struct bytes public_area;
    uint8_t name[2 + SHA256_BYTES];
};

/* TPMT_SENSITIVE (part 2, 12.3.2.4): type, no authValue, obfuscation, key. */
static enum err sensitive_make(struct arena *arena, struct bytes obfuscation, struct bytes key,
                               struct bytes *ret)
{
    const struct bytes none = {0};
    struct bytes area = {0};
    struct tpm_writer w = tpm_write(arena, MAX_OBJECT_BYTES);
    struct tpm_writer sized = tpm_write(arena, MAX_OBJECT_BYTES);
    tpm_put_u16(&w, ALG_KEYEDHASH);
    tpm_put_2b(&w, none);
    tpm_put_2b(&w, obfuscation);
    tpm_put_2b(&w, key);
    enum err e = tpm_written(&w, &area);
    tpm_put_2b(&sized, area);
    return e ? e : tpm_written(&sized, ret);
}

/* TPMT_PUBLIC of an HMAC key; unique is the digest of obfuscation and key. */
static enum err public_make(struct arena *arena, struct bytes obfuscation, struct bytes key,
                            struct bytes *ret)
{
    const struct bytes none = {0};
    struct bytes secret = {0};
    uint8_t unique[SHA256_BYTES];
    struct tpm_writer both = tpm_write(arena, obfuscation.len + key.len);
    tpm_put(&both, obfuscation);
    tpm_put(&both, key);
    enum err e = tpm_written(&both, &secret);
    if (!e)
        e = digest_sha256(secret, unique);
    if (e)
        return e;
    struct tpm_writer w = tpm_write(arena, MAX_OBJECT_BYTES);
    tpm_put_u16(&w, ALG_KEYEDHASH);
    tpm_put_u16(&w, TPM_ALG_SHA256);
    tpm_put_u32(&w, SIGN | NO_DA | USER_WITH_AUTH);
    tpm_put_2b(&w, none);
    tpm_put_u16(&w, ALG_HMAC);
    tpm_put_u16(&w, TPM_ALG_SHA256);
    tpm_put_2b(&w, bytes_of(unique, sizeof(unique)));
    return tpm_written(&w, ret);
}

static enum err object_make(struct arena *arena, const uint8_t *hmac_key, struct hmac_object *ret)
{
    struct bytes obfuscation = {0};
    struct bytes key = bytes_of(hmac_key, TPM_HMAC_KEY_BYTES);
    enum err e = tpm_random(arena, SHA256_BYTES, &obfuscation);
    if (!e)
        e = sensitive_make(arena, obfuscation, key, &ret->sensitive);
    if (!e)
        e = public_make(arena, obfuscation, key, &ret->public_area);
    if (e)
        return e;
    ret->name[0] = TPM_ALG_SHA256 >> 8;
    ret->name[1] = TPM_ALG_SHA256 & 0xff;
    return digest_sha256(ret->public_area, ret->name + 2);
}

/* The inner wrapper: a digest over the sensitive area and the name, and that area. */
static enum err inner_wrap(struct arena *arena, const struct hmac_object *o, struct bytes inner_key,
                           struct bytes *ret)
{
    struct bytes hashed = {0}, plain = {0};
    uint8_t digest[SHA256_BYTES];
    struct tpm_writer in = tpm_write(arena, o->sensitive.len + sizeof(o->name));
    tpm_put(&in, o->sensitive);
    tpm_put(&in, bytes_of(o->name, sizeof(o->name)));
    enum err e = tpm_written(&in, &hashed);
    if (!e)
        e = digest_sha256(hashed, digest);
    if (e)
        return e;
    struct tpm_writer w = tpm_write(arena, SIZE_BYTES + sizeof(digest) + o->sensitive.len);
    tpm_put_2b(&w, bytes_of(digest, sizeof(digest)));
    tpm_put(&w, o->sensitive);
    e = tpm_written(&w, &plain);
    return e ? e : tpm_aes_cfb(arena, inner_key, plain, ret);
}

static enum err blob_join(struct arena *arena, const struct tpm_credential *c,
                          struct bytes duplicate, struct bytes seed_secret,
                          struct bytes public_area, struct bytes *ret)
{
    const struct bytes no_creation_data = {0};
    struct tpm_writer w = tpm_write(arena, MAX_BLOB_BYTES);
    tpm_put(&w, c->id_object);
    tpm_put(&w, c->encrypted_secret);
    tpm_put(&w, duplicate);
    tpm_put(&w, seed_secret);
    tpm_put_2b(&w, public_area);
    tpm_put_2b(&w, no_creation_data);
    return tpm_written(&w, ret);
}

enum err tpm_activation_blob(struct arena *arena, const struct tpm_public *ek,
                             const struct tpm_public *srk,
                             const uint8_t hmac_key[TPM_HMAC_KEY_BYTES], struct bytes *ret_blob,
                             const char **ret_why)
{
    struct hmac_object object = {0};
    struct tpm_credential credential = {0};
    struct bytes inner_key = {0}, inner = {0}, seed = {0}, seed_secret = {0}, duplicate = {0};
    enum err e = tpm_check_storage(srk, ret_why);
    if (e)
        return e;
    e = tpm_random(arena, INNER_KEY_BYTES, &inner_key);
    if (!e)
        e = tpm_make_credential(arena, ek, tpm_name(srk), inner_key, &credential, ret_why);
    if (!e)
        e = object_make(arena, hmac_key, &object);
    if (!e)
        e = inner_wrap(arena, &object, inner_key, &inner);
    if (e)
        return e;
    e = tpm_seed_share(arena, srk, "DUPLICATE", &seed, &seed_secret);
    if (e == ERR_INVALID)
        return tpm_refuse(ret_why, "the storage root key is no point of its curve, or no RSA key");
    if (!e)
        e = tpm_outer_wrap(arena, srk, seed, bytes_of(object.name, sizeof(object.name)), inner,
                           &duplicate);
    return e ? e
             : blob_join(arena, &credential, duplicate, seed_secret, object.public_area, ret_blob);
}
