/* What comes of TPM2_Certify (part 2, 10.12 and 11.3): reading it. */
#include "pki/tpm_wire.h"

enum { ATTEST_CERTIFY = 0x8017, CLOCK_INFO_BYTES = 8 + 4 + 4 + 1, FIRMWARE_VERSION_BYTES = 8 };

static const uint32_t generated_value = 0xff544347; /* a TPM signs it for nobody else */

enum err tpm_attest_decode(struct bytes in, struct tpm_attest *ret_attest, const char **ret_why)
{
    struct tpm_attest a = {0};
    struct tpm_reader r = tpm_read(in);
    if (in.len > TPM_MAX_ATTEST_BYTES)
        return tpm_refuse(ret_why, "the attestation is longer than any");
    if (tpm_take_u32(&r) != generated_value)
        return tpm_refuse(ret_why, "the attestation does not begin as what a TPM makes itself");
    if (tpm_take_u16(&r) != ATTEST_CERTIFY)
        return tpm_refuse(ret_why, "the attestation is none of TPM2_Certify");
    a.qualified_signer = tpm_take_2b(&r, TPM_MAX_NAME_BYTES);
    a.extra_data = tpm_take_2b(&r, TPM_MAX_NONCE_BYTES);
    (void)tpm_take(&r, CLOCK_INFO_BYTES);
    (void)tpm_take(&r, FIRMWARE_VERSION_BYTES);
    a.name = tpm_take_2b(&r, TPM_MAX_NAME_BYTES);
    a.qualified_name = tpm_take_2b(&r, TPM_MAX_NAME_BYTES);
    if (!tpm_ended(&r))
        return tpm_refuse(ret_why, r.broken ? "the attestation is cut short, or a part is too long"
                                            : "something follows the attestation");
    *ret_attest = a;
    return ERR_OK;
}

enum err tpm_signature_decode(struct bytes in, struct tpm_signature *ret_signature,
                              const char **ret_why)
{
    struct tpm_signature s = {0};
    struct tpm_reader r = tpm_read(in);
    if (in.len > TPM_MAX_SIGNATURE_BYTES)
        return tpm_refuse(ret_why, "the signature is longer than any");
    s.scheme = tpm_take_u16(&r);
    s.hash = tpm_take_u16(&r);
    if (s.scheme == TPM_ALG_ECDSA) {
        s.r = tpm_take_2b(&r, TPM_MAX_ECC_BYTES);
        s.s = tpm_take_2b(&r, TPM_MAX_ECC_BYTES);
    } else if (s.scheme == TPM_ALG_RSASSA || s.scheme == TPM_ALG_RSAPSS) {
        s.rsa = tpm_take_2b(&r, TPM_MAX_RSA_BYTES);
    } else {
        return tpm_refuse(ret_why, "the signature's scheme is not RSASSA, RSAPSS or ECDSA");
    }
    if (!tpm_ended(&r))
        return tpm_refuse(ret_why, "the signature is cut short, or something follows it");
    if (!tpm_digest(s.hash))
        return tpm_refuse(ret_why, "the signature's digest is not SHA-256, SHA-384 or SHA-512");
    *ret_signature = s;
    return ERR_OK;
}
