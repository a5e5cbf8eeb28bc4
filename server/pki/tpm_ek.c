/* Certificates of endorsement keys (TCG EK Credential Profile). */
#include "pki/tpm.h"

enum err tpm_ek_cert_check(const struct trust *roots, struct arena *arena,
                           const struct bytes *chain, size_t count, const struct tpm_public *ek,
                           int64_t now_s, struct chain_verdict *ret_verdict, struct fault *fault)
{
    uint8_t spki[SHA256_BYTES];
    enum err e = tpm_spki_fingerprint(ek, spki);
    if (e == ERR_INVALID)
        return fault_set(fault, FAULT_CHAIN_INVALID,
                         "the endorsement key is no point of its curve, or no RSA key");
    if (!e)
        e = chain_verify_endorsement(roots, arena, chain, count, now_s, ret_verdict, fault);
    if (!e && !secret_equal(spki, ret_verdict->leaf.spki_sha256, sizeof(spki)))
        e = fault_set(fault, FAULT_CHAIN_INVALID,
                      "the certificate is not of the endorsement key that was named");
    return e;
}
