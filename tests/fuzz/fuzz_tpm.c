/* A TPM's structures by the first byte: a public area, an attestation, a signature. What is read is
 * within what was given and named by its digest; what is made for a key that passes the checks is
 * made. */
#include <stdlib.h>

#include "pki/key.h"
#include "pki/tpm_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void within(struct bytes part, struct bytes all)
{
    must(part.len == 0 || (part.data >= all.data && part.data + part.len <= all.data + all.len));
}

static void credential_try(const struct tpm_public *p)
{
    struct arena arena;
    struct tpm_credential c = {0};
    const char *why = NULL;
    arena_init(&arena, TPM_ARENA_BYTES);
    enum err e = tpm_make_credential(&arena, p, tpm_name(p), bytes_of(p->name, 16), &c, &why);
    must(e == ERR_OK ? c.id_object.len > 0 && c.encrypted_secret.len > 0
                     : e == ERR_INVALID && why != NULL);
    arena_done(&arena);
}

static void public_try(struct bytes in)
{
    struct tpm_public p, again;
    const char *why = NULL, *class_why = NULL;
    if (tpm_public_decode(in, &p, &why)) {
        must(why != NULL);
        return;
    }
    within(p.raw, in);
    within(p.auth_policy, p.raw);
    within(p.modulus, p.raw);
    within(p.x, p.raw);
    within(p.y, p.raw);
    must(tpm_public_decode(p.raw, &again, &why) == ERR_OK);
    must(bytes_equal(tpm_name(&p), tpm_name(&again)) && bytes_equal(p.raw, again.raw));
    must(tpm_check_attestation_key(&p, &class_why) || tpm_check_storage(&p, &class_why));
    if (!tpm_check_storage(&p, &class_why))
        credential_try(&p);
}

static void attest_try(struct bytes in)
{
    struct tpm_attest a;
    const char *why = NULL;
    if (tpm_attest_decode(in, &a, &why)) {
        must(why != NULL);
        return;
    }
    within(a.qualified_signer, in);
    within(a.extra_data, in);
    within(a.name, in);
    within(a.qualified_name, in);
}

static void signature_try(struct bytes in)
{
    struct tpm_signature s;
    const char *why = NULL;
    if (tpm_signature_decode(in, &s, &why)) {
        must(why != NULL);
        return;
    }
    within(s.rsa, in);
    within(s.r, in);
    within(s.s, in);
    must(s.rsa.len == 0 || s.scheme != TPM_ALG_ECDSA);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0)
        return 0;
    struct bytes in = bytes_of(data + 1, len - 1);
    switch (data[0]) {
    case 'p':
        public_try(in);
        break;
    case 'a':
        attest_try(in);
        break;
    case 's':
        signature_try(in);
        break;
    }
    return 0;
}
