/* What a key's attributes promise (part 2, 8.3; part 1, 25.2). */
#include "pki/tpm_wire.h"

enum {
    FIXED_TPM = 1 << 1,
    FIXED_PARENT = 1 << 4,
    SENSITIVE_DATA_ORIGIN = 1 << 5,
    RESTRICTED = 1 << 16,
    DECRYPT = 1 << 17,
    SIGN = 1 << 18,
    MIN_RSA_BITS = 2048
};

/* Made by the TPM, and tied to it and to the parent it was made under. */
static bool is_bound(const struct tpm_public *p)
{
    const uint32_t want = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN;
    return (p->attributes & want) == want;
}

static bool is_strong(const struct tpm_public *p)
{
    return p->type == TPM_ALG_ECC || p->rsa_bits >= MIN_RSA_BITS;
}

static enum err bound_check(const struct tpm_public *p, const char **ret_why)
{
    if (!is_bound(p))
        return tpm_refuse(ret_why,
                          "the key lacks fixedTPM, fixedParent or sensitiveDataOrigin: it may "
                          "exist outside its TPM");
    if (!is_strong(p))
        return tpm_refuse(ret_why, "an RSA key has less than 2048 bits");
    return ERR_OK;
}

enum err tpm_check_storage(const struct tpm_public *p, const char **ret_why)
{
    enum err e = bound_check(p, ret_why);
    if (e)
        return e;
    if ((p->attributes & (RESTRICTED | DECRYPT | SIGN)) != (RESTRICTED | DECRYPT))
        return tpm_refuse(ret_why, "the key is no storage key: restricted and decrypt, not sign");
    if (p->sym_alg != TPM_ALG_AES || p->sym_mode != TPM_ALG_CFB ||
        (p->sym_bits != 128 && p->sym_bits != 256))
        return tpm_refuse(ret_why, "the storage key's cipher is not AES-128 or AES-256 in CFB");
    if (p->scheme != TPM_ALG_NULL)
        return tpm_refuse(ret_why, "a storage key has no scheme");
    return ERR_OK;
}

enum err tpm_check_attestation_key(const struct tpm_public *p, const char **ret_why)
{
    enum err e = bound_check(p, ret_why);
    if (e)
        return e;
    if ((p->attributes & (RESTRICTED | DECRYPT | SIGN)) != (RESTRICTED | SIGN))
        return tpm_refuse(ret_why, "the key is no attestation key: restricted and sign, not "
                                   "decrypt");
    if (p->scheme != TPM_ALG_RSASSA && p->scheme != TPM_ALG_RSAPSS && p->scheme != TPM_ALG_ECDSA)
        return tpm_refuse(ret_why, "the attestation key's scheme is not RSASSA, RSAPSS or ECDSA");
    return ERR_OK;
}

enum err tpm_check_bound_key(const struct tpm_public *p, const char **ret_why)
{
    enum err e = bound_check(p, ret_why);
    if (!e && (p->attributes & SIGN) == 0)
        e = tpm_refuse(ret_why, "the key does not sign");
    return e;
}
