/* TPM2_MakeCredential without a TPM (part 1, 24). */
#include "pki/tpm_wire.h"

enum { SIZE_BYTES = 2 };

enum err tpm_make_credential(struct arena *arena, const struct tpm_public *ek, struct bytes name,
                             struct bytes secret, struct tpm_credential *ret_credential,
                             const char **ret_why)
{
    struct tpm_credential c = {0};
    struct bytes seed = {0}, plain = {0};
    enum err e = tpm_check_storage(ek, ret_why);
    if (e)
        return e;
    if (secret.len == 0 || secret.len > tpm_digest_bytes(ek->name_alg))
        return tpm_refuse(ret_why, "the secret does not fit a credential");
    struct tpm_writer w = tpm_write(arena, SIZE_BYTES + secret.len);
    tpm_put_2b(&w, secret);
    e = tpm_written(&w, &plain);
    if (!e)
        e = tpm_seed_share(arena, ek, "IDENTITY", &seed, &c.encrypted_secret);
    if (!e)
        e = tpm_outer_wrap(arena, ek, seed, name, plain, &c.id_object);
    if (e == ERR_INVALID)
        return tpm_refuse(ret_why, "the endorsement key is no point of its curve, or no RSA key");
    if (!e)
        *ret_credential = c;
    return e;
}
