/* The TPM arithmetic of pki/tpm.h by command, all bytes in hexadecimal; a real TPM is asked what it
 * thinks of it in tests/integration. A refusal is told after "refused: ", with exit code 1. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "pki/tpm.h"

enum { MAX_ARGUMENTS = 8, ARENA_BYTES = 1 << 20 };

struct arguments {
    struct arena arena;
    struct bytes in[MAX_ARGUMENTS];
    int count;
    struct fault fault;
};

static void print(const struct bytes *parts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < parts[i].len; k++)
            printf("%02x", parts[i].data[k]);
        printf("\n");
    }
}

static enum err two_decode(const struct arguments *a, struct tpm_public *first,
                           struct tpm_public *second, const char **ret_why)
{
    enum err e = tpm_public_decode(a->in[0], first, ret_why);
    return e ? e : tpm_public_decode(a->in[1], second, ret_why);
}

/* EK KEY SECRET: TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET for the key's name */
static enum err credential(struct arguments *a, const char **ret_why)
{
    struct tpm_public ek, key;
    struct tpm_credential c = {0};
    enum err e = two_decode(a, &ek, &key, ret_why);
    if (!e)
        e = tpm_make_credential(&a->arena, &ek, tpm_name(&key), a->in[2], &c, ret_why);
    if (!e)
        print((struct bytes[]){c.id_object, c.encrypted_secret}, 2);
    return e;
}

/* EK SRK HMAC-KEY: the blob of six parts */
static enum err activation(struct arguments *a, const char **ret_why)
{
    struct tpm_public ek, srk;
    struct bytes blob = {0};
    enum err e =
        a->in[2].len == TPM_HMAC_KEY_BYTES ? two_decode(a, &ek, &srk, ret_why) : ERR_SYSTEM;
    if (!e)
        e = tpm_activation_blob(&a->arena, &ek, &srk, a->in[2].data, &blob, ret_why);
    if (!e)
        print(&blob, 1);
    return e;
}

/* AK KEY ATTEST SIGNATURE NONCE: the key's fingerprint */
static enum err certify(struct arguments *a, const char **ret_why)
{
    struct tpm_public ak, key;
    uint8_t fingerprint[SHA256_BYTES];
    struct tpm_certification c = {
        .ak = &ak, .key = &key, .attest = a->in[2], .signature = a->in[3], .nonce = a->in[4]};
    enum err e = two_decode(a, &ak, &key, ret_why);
    if (!e)
        e = tpm_certify_verify(&c, fingerprint, ret_why);
    struct bytes out = bytes_of(fingerprint, sizeof(fingerprint));
    if (!e)
        print(&out, 1);
    return e;
}

/* EK CERTIFICATE ROOT TIME(8 bytes, seconds): nothing */
static enum err ek_certificate(struct arguments *a, const char **ret_why)
{
    struct tpm_public ek;
    struct chain_verdict verdict = {0};
    struct trust_ca root = {.der = a->in[2], .role = TRUST_ANCHOR, .id = 1};
    _cleanup_(trust_freep) struct trust *roots = NULL;
    int64_t now_s = 0;
    for (size_t i = 0; i < a->in[3].len; i++)
        now_s = now_s << 8 | a->in[3].data[i];
    enum err e = tpm_public_decode(a->in[0], &ek, ret_why);
    if (!e)
        e = trust_new(&root, 1, &roots);
    if (!e)
        e = tpm_ek_cert_check(roots, &a->arena, &a->in[1], 1, &ek, now_s, &verdict, &a->fault);
    if (e == ERR_DENIED)
        *ret_why = a->fault.detail;
    return e;
}

static const struct {
    const char *name;
    int arguments;
    enum err (*run)(struct arguments *a, const char **ret_why);
} commands[] = {{"credential", 3, credential},
                {"activation", 3, activation},
                {"certify", 5, certify},
                {"ek-certificate", 4, ek_certificate}};

static bool arguments_take(struct arguments *a, int count, char **texts)
{
    for (a->count = 0; a->count < count && a->count < MAX_ARGUMENTS; a->count++) {
        size_t len = strlen(texts[a->count]) / 2;
        uint8_t *data = arena_alloc(&a->arena, len);
        if (!data || text_parse_hex(texts[a->count], data, len))
            return false;
        a->in[a->count] = bytes_of(data, len);
    }
    return a->count == count;
}

int main(int argc, char **argv)
{
    const char *why = NULL;
    struct arguments a = {0};
    enum err e = ERR_NOT_FOUND;
    arena_init(&a.arena, ARENA_BYTES);
    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(commands); i++) {
        if (strcmp(commands[i].name, argv[1]) == 0 && commands[i].arguments == argc - 2)
            e = arguments_take(&a, argc - 2, argv + 2) ? commands[i].run(&a, &why) : ERR_INVALID;
    }
    if (e)
        printf("refused: %s\n", why ? why : err_name(e));
    arena_done(&a.arena);
    return e ? 1 : 0;
}
