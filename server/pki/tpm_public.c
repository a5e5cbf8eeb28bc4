/* Public areas (part 2, 12.2.4): reading them, and their names (part 1, 16). */
#include <openssl/evp.h>

#include "pki/tpm_wire.h"

enum { DEFAULT_EXPONENT = 65537, NAME_ALG_BYTES = 2 };

const EVP_MD *tpm_digest(uint16_t alg)
{
    switch (alg) {
    case TPM_ALG_SHA256:
        return EVP_sha256();
    case TPM_ALG_SHA384:
        return EVP_sha384();
    case TPM_ALG_SHA512:
        return EVP_sha512();
    }
    return NULL;
}

size_t tpm_digest_bytes(uint16_t alg)
{
    const EVP_MD *md = tpm_digest(alg);
    return md ? (size_t)EVP_MD_get_size(md) : 0;
}

const char *tpm_curve(uint16_t curve, size_t *ret_bytes)
{
    *ret_bytes = curve == TPM_CURVE_P256 ? 32 : TPM_MAX_ECC_BYTES;
    if (curve == TPM_CURVE_P256)
        return "P-256";
    return curve == TPM_CURVE_P384 ? "P-384" : NULL;
}

/* TPMT_SYM_DEF_OBJECT */
static enum err symmetric_take(struct tpm_reader *r, struct tpm_public *p, const char **ret_why)
{
    p->sym_alg = tpm_take_u16(r);
    if (p->sym_alg == TPM_ALG_NULL || r->broken)
        return ERR_OK;
    if (p->sym_alg != TPM_ALG_AES)
        return tpm_refuse(ret_why, "the symmetric cipher of the key is not AES");
    p->sym_bits = tpm_take_u16(r);
    p->sym_mode = tpm_take_u16(r);
    return ERR_OK;
}

static bool scheme_is_known(uint16_t type, uint16_t scheme)
{
    switch (scheme) {
    case TPM_ALG_NULL:
        return true;
    case TPM_ALG_RSASSA:
    case TPM_ALG_RSAES:
    case TPM_ALG_RSAPSS:
    case TPM_ALG_OAEP:
        return type == TPM_ALG_RSA;
    case TPM_ALG_ECDSA:
    case TPM_ALG_ECDH:
        return type == TPM_ALG_ECC;
    }
    return false;
}

/* TPMT_RSA_SCHEME and TPMT_ECC_SCHEME, as far as they are of one hash */
static enum err scheme_take(struct tpm_reader *r, struct tpm_public *p, const char **ret_why)
{
    p->scheme = tpm_take_u16(r);
    if (!r->broken && !scheme_is_known(p->type, p->scheme))
        return tpm_refuse(ret_why, "the scheme of the key is not known here");
    if (p->scheme != TPM_ALG_NULL && p->scheme != TPM_ALG_RSAES)
        p->scheme_hash = tpm_take_u16(r);
    return ERR_OK;
}

static enum err rsa_take(struct tpm_reader *r, struct tpm_public *p, const char **ret_why)
{
    p->rsa_bits = tpm_take_u16(r);
    p->rsa_exponent = tpm_take_u32(r);
    if (p->rsa_exponent == 0)
        p->rsa_exponent = DEFAULT_EXPONENT;
    p->modulus = tpm_take_2b(r, TPM_MAX_RSA_BYTES);
    if (r->broken)
        return ERR_OK;
    if (p->modulus.len == 0 || p->modulus.len * 8 != p->rsa_bits)
        return tpm_refuse(ret_why, "the modulus is not as long as the key says it is");
    if ((p->modulus.data[0] & 0x80) == 0 || (p->modulus.data[p->modulus.len - 1] & 1) == 0)
        return tpm_refuse(ret_why, "the modulus is even, or begins with a zero bit");
    return ERR_OK;
}

static enum err ecc_take(struct tpm_reader *r, struct tpm_public *p, const char **ret_why)
{
    size_t len = 0;
    p->curve = tpm_take_u16(r);
    if (!r->broken && !tpm_curve(p->curve, &len))
        return tpm_refuse(ret_why, "the curve of the key is neither P-256 nor P-384");
    if (tpm_take_u16(r) != TPM_ALG_NULL)
        (void)tpm_take_u16(r); /* TPMT_KDF_SCHEME, which no TPM uses */
    p->x = tpm_take_2b(r, len);
    p->y = tpm_take_2b(r, len);
    if (!r->broken && (p->x.len == 0 || p->y.len == 0))
        return tpm_refuse(ret_why, "the point of the key is empty");
    return ERR_OK;
}

static enum err name_make(struct tpm_public *p)
{
    unsigned len = 0;
    p->name[0] = (uint8_t)(p->name_alg >> 8);
    p->name[1] = (uint8_t)p->name_alg;
    if (EVP_Digest(p->raw.data, p->raw.len, p->name + NAME_ALG_BYTES, &len, tpm_digest(p->name_alg),
                   NULL) != 1)
        return ERR_SYSTEM;
    p->name_len = NAME_ALG_BYTES + len;
    return ERR_OK;
}

static enum err head_take(struct tpm_reader *r, struct tpm_public *p, const char **ret_why)
{
    p->type = tpm_take_u16(r);
    if (!r->broken && p->type != TPM_ALG_RSA && p->type != TPM_ALG_ECC)
        return tpm_refuse(ret_why, "the key is neither RSA nor ECC");
    p->name_alg = tpm_take_u16(r);
    if (!r->broken && !tpm_digest(p->name_alg))
        return tpm_refuse(ret_why, "the name algorithm is not SHA-256, SHA-384 or SHA-512");
    p->attributes = tpm_take_u32(r);
    p->auth_policy = tpm_take_2b(r, TPM_MAX_DIGEST_BYTES);
    if (!r->broken && p->auth_policy.len > 0 && p->auth_policy.len != tpm_digest_bytes(p->name_alg))
        return tpm_refuse(ret_why, "the policy is not as long as the name algorithm's digest");
    enum err e = symmetric_take(r, p, ret_why);
    return e ? e : scheme_take(r, p, ret_why);
}

/* A TPM2B_PUBLIC says how much follows. No TPMT_PUBLIC is as short as its type would then say. */
static struct bytes size_strip(struct bytes in)
{
    struct tpm_reader r = tpm_read(in);
    size_t len = tpm_take_u16(&r);
    return !r.broken && len == r.rest.len ? r.rest : in;
}

enum err tpm_public_decode(struct bytes in, struct tpm_public *ret_public, const char **ret_why)
{
    struct tpm_public p = {0};
    if (in.len > TPM_MAX_PUBLIC_BYTES)
        return tpm_refuse(ret_why, "the public area is longer than any key's");
    p.raw = size_strip(in);
    struct tpm_reader r = tpm_read(p.raw);
    enum err e = head_take(&r, &p, ret_why);
    if (!e)
        e = p.type == TPM_ALG_RSA ? rsa_take(&r, &p, ret_why) : ecc_take(&r, &p, ret_why);
    if (!e && !tpm_ended(&r))
        e = tpm_refuse(ret_why, r.broken ? "the public area is cut short, or a part is too long"
                                         : "something follows the public area");
    if (!e)
        e = name_make(&p);
    if (!e)
        *ret_public = p;
    return e;
}
