/* A device that registers by its TPM: only the one with the enrollment's endorsement key can take
 * out of a challenge the key that signs the registration. What the challenge holds is made anew
 * from what the request says, so nobody has to remember it, and nobody can have another device's
 * forgotten. */
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/text.h"
#include "enroll/attest.h"
#include "enroll/secrets.h"
#include "pki/seal.h"
#include "pki/tpm.h"

enum { WINDOW_S = 3600 };

/* The two keys of a TPM that a request names. */
struct tpm_keys {
    struct tpm_public ek;
    struct tpm_public srk;
};

static enum err key_take(struct enrolment *e, struct bytes in, const char *which,
                         struct tpm_public *ret)
{
    const char *why = "it is missing";
    if (in.len > 0 && !tpm_public_decode(in, ret, &why) && !tpm_check_storage(ret, &why))
        return ERR_OK;
    return fault_set(e->fault, FAULT_TPM_MALFORMED, "the %s: %s", which, why);
}

static enum err keys_take(struct enrolment *e, struct tpm_keys *ret)
{
    enum err err = key_take(e, e->rq->endorsement_key, "endorsement key", &ret->ek);
    if (err || e->rq->attestation_key.len > 0) /* which needs no other */
        return err;
    return key_take(e, e->rq->storage_root_key, "storage root key", &ret->srk);
}

static bool digest_is(const struct tpm_public *p, struct bytes expected)
{
    uint8_t digest[SHA256_BYTES];
    return digest_sha256(p->raw, digest) == ERR_OK &&
           bytes_equal(bytes_of(digest, sizeof(digest)), expected);
}

/* Keys of this registration that the TPM is given: one to sign with for an hour or two (window),
 * one to keep (window 0). */
static enum err key_derive(const struct enrolment *e, const struct tpm_keys *k, int64_t window,
                           uint8_t ret_key[TPM_HMAC_KEY_BYTES])
{
    const char *ek = text_hex(e->arena, tpm_name(&k->ek));
    const char *srk = text_hex(e->arena, tpm_name(&k->srk));
    const char *label = ek && srk ? arena_printf(e->arena, "tpm %s %s %s %lld", e->registration_id,
                                                 ek, srk, (long long)window)
                                  : NULL;
    return label ? seal_derive(e->service->sealer, label, ret_key) : ERR_NO_MEMORY;
}

static enum err blob_make(struct enrolment *e, const struct tpm_keys *k, int64_t window,
                          struct bytes *ret_blob)
{
    uint8_t key[TPM_HMAC_KEY_BYTES];
    const char *why = "";
    enum err err = key_derive(e, k, window, key);
    if (!err)
        err = tpm_activation_blob(e->arena, &k->ek, &k->srk, key, ret_blob, &why);
    secret_cleanse(key, sizeof(key));
    if (err == ERR_INVALID)
        return fault_set(e->fault, FAULT_TPM_MALFORMED, "%s", why);
    return err ? fault_set(e->fault, FAULT_INTERNAL, "making a challenge: %s", err_name(err))
               : ERR_OK;
}

/* This hour's key, or the last's. */
static bool signed_lately(struct enrolment *e, const struct tpm_keys *k, int64_t window)
{
    bool good = false;
    for (int64_t w = window; w > window - 2 && !good; w--) {
        uint8_t key[TPM_HMAC_KEY_BYTES];
        good = key_derive(e, k, w, key) == ERR_OK &&
               secrets_signed(bytes_of(key, sizeof(key)), e->rq->signed_text, e->rq->signature);
        secret_cleanse(key, sizeof(key));
    }
    return good;
}

static enum err possession_check(struct enrolment *e, const struct tpm_keys *k)
{
    int64_t window = clock_wall_s() / WINDOW_S;
    if (e->rq->signature.len == 0) {
        enum err err = blob_make(e, k, window, &e->challenge);
        return err ? err : fault_set(e->fault, FAULT_TPM_CHALLENGE, "sign with what it holds");
    }
    if (!signed_lately(e, k, window))
        return fault_set(e->fault, FAULT_TPM_SIGNATURE,
                         "it is not signed with what the challenge held, or that is too old");
    return blob_make(e, k, 0, &e->result.tpm_key);
}

static enum err begin(struct enrolment *e, struct tpm_keys *ret_keys)
{
    if (!e->service->sealer)
        return fault_set(e->fault, FAULT_SECRETS_UNAVAILABLE, "[secrets] key is not set");
    return keys_take(e, ret_keys);
}

/* What an attestation key is asked with, this hour (window) or then. */
static enum err question_derive(const struct enrolment *e, const struct tpm_public *ek,
                                const struct tpm_public *ak, const char *what, int64_t window,
                                uint8_t ret[SHA256_BYTES])
{
    const char *ek_name = text_hex(e->arena, tpm_name(ek));
    const char *ak_name = text_hex(e->arena, tpm_name(ak));
    const char *label = ek_name && ak_name
                            ? arena_printf(e->arena, "tpm %s %s %s %s %lld", what,
                                           e->registration_id, ek_name, ak_name, (long long)window)
                            : NULL;
    return label ? seal_derive(e->service->sealer, label, ret) : ERR_NO_MEMORY;
}

static enum err question_make(struct enrolment *e, const struct tpm_public *ek,
                              const struct tpm_public *ak, int64_t window)
{
    uint8_t secret[SHA256_BYTES], nonce[SHA256_BYTES];
    struct tpm_credential credential;
    const char *why = "";
    enum err err = question_derive(e, ek, ak, "secret", window, secret);
    if (!err)
        err = question_derive(e, ek, ak, "nonce", window, nonce);
    if (!err)
        err = tpm_make_credential(e->arena, ek, tpm_name(ak), bytes_of(secret, sizeof(secret)),
                                  &credential, &why);
    secret_cleanse(secret, sizeof(secret));
    const void *copy = err ? NULL : arena_copy(e->arena, nonce, sizeof(nonce));
    if (err == ERR_INVALID)
        return fault_set(e->fault, FAULT_TPM_MALFORMED, "%s", why);
    if (!copy)
        return fault_set(e->fault, FAULT_INTERNAL, "making a credential");
    e->question = (struct tpm_question){credential.id_object, credential.encrypted_secret,
                                        bytes_of(copy, sizeof(nonce))};
    return fault_set(e->fault, FAULT_TPM_CHALLENGE, "activate the credential, certify the key");
}

/* Which hour's credential was opened; 0: none. */
static int64_t window_of(const struct enrolment *e, const struct tpm_public *ek,
                         const struct tpm_public *ak)
{
    int64_t now = clock_wall_s() / WINDOW_S;
    for (int64_t w = now; w > now - 2; w--) {
        uint8_t secret[SHA256_BYTES];
        bool good = question_derive(e, ek, ak, "secret", w, secret) == ERR_OK &&
                    e->rq->activated.len == sizeof(secret) &&
                    secret_equal(e->rq->activated.data, secret, sizeof(secret));
        secret_cleanse(secret, sizeof(secret));
        if (good)
            return w;
    }
    return 0;
}

/* A key that never leaves the TPM whose endorsement key is known: its attestation key opened the
 * credential, so it is in that TPM, and says that the key is there too. */
static enum err binding_check(struct enrolment *e, const struct tpm_public *ek)
{
    struct tpm_public ak, key;
    uint8_t nonce[SHA256_BYTES];
    const char *why = "";
    if (tpm_public_decode(e->rq->attestation_key, &ak, &why) ||
        tpm_check_attestation_key(&ak, &why))
        return fault_set(e->fault, FAULT_TPM_MALFORMED, "the attestation key: %s", why);
    if (e->rq->activated.len == 0)
        return question_make(e, ek, &ak, clock_wall_s() / WINDOW_S);
    int64_t window = window_of(e, ek, &ak);
    if (window == 0)
        return fault_set(e->fault, FAULT_TPM_SIGNATURE,
                         "the credential was not activated, or is too old");
    if (question_derive(e, ek, &ak, "nonce", window, nonce))
        return fault_set(e->fault, FAULT_INTERNAL, "deriving a nonce");
    if (tpm_public_decode(e->rq->certified_key, &key, &why))
        return fault_set(e->fault, FAULT_TPM_MALFORMED, "the key: %s", why);
    const struct tpm_certification c = {.ak = &ak,
                                        .key = &key,
                                        .attest = e->rq->certification,
                                        .signature = e->rq->certification_signature,
                                        .nonce = bytes_of(nonce, sizeof(nonce))};
    if (tpm_certify_verify(&c, e->bound_spki, &why))
        return fault_set(e->fault, FAULT_TPM_SIGNATURE, "the certification: %s", why);
    e->bound = true;
    return ERR_OK;
}

static enum err prove(struct enrolment *e, const struct tpm_keys *k)
{
    return e->rq->attestation_key.len > 0 ? binding_check(e, &k->ek) : possession_check(e, k);
}

enum err attest_tpm(struct enrolment *e, const struct enrollment_row *row)
{
    struct tpm_keys k = {0};
    bool binding = e->rq->attestation_key.len > 0;
    enum err err = begin(e, &k);
    if (err)
        return err;
    if (!digest_is(&k.ek, row->endorsement))
        return fault_set(e->fault, FAULT_TPM_KEY, "the endorsement key is another");
    if (!binding && row->storage_root.len > 0 && !digest_is(&k.srk, row->storage_root))
        return fault_set(e->fault, FAULT_TPM_KEY, "the storage root key is another");
    return prove(e, &k);
}

/* Whoever has a certified TPM might call itself anything: an id of a group's is that of its key, as
 * SDKs make it. */
static enum err name_check(struct enrolment *e, const struct tpm_public *ek)
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
    uint8_t sized[2 + TPM_MAX_PUBLIC_BYTES], digest[SHA256_BYTES];
    char id[SHA256_BYTES * 8 / 5 + 2] = "";
    sized[0] = (uint8_t)(ek->raw.len >> 8);
    sized[1] = (uint8_t)ek->raw.len;
    memcpy(sized + 2, ek->raw.data, ek->raw.len);
    if (digest_sha256(bytes_of(sized, 2 + ek->raw.len), digest))
        return fault_set(e->fault, FAULT_INTERNAL, "digest");
    for (size_t bit = 0; bit < SHA256_BYTES * 8; bit += 5) {
        unsigned pair = digest[bit / 8] << 8u;
        if (bit / 8 + 1 < SHA256_BYTES)
            pair |= digest[bit / 8 + 1];
        id[bit / 5] = alphabet[pair >> (11 - bit % 8) & 31u];
    }
    return strcmp(id, e->registration_id) == 0
               ? ERR_OK
               : fault_set(e->fault, FAULT_ENROLLMENT_NAME,
                           "in a group the registration id of this TPM is %s", id);
}

/* The group whose manufacturer's roots the certificate leads to. */
static enum err group_find(struct enrolment *e, const struct tpm_public *ek,
                           const struct enrollment_row *rows, size_t count,
                           const struct enrollment_row **ret_row)
{
    struct chain_verdict verdict;
    struct fault told = {0}; /* what is wrong below roots that are known, if they are */
    if (e->rq->endorsement_chain_count == 0)
        return fault_set(e->fault, FAULT_ENROLLMENT_UNKNOWN,
                         "no individual enrollment, and no payload.ekCert for a group");
    for (size_t i = 0; i < count; i++) {
        _cleanup_(trust_freep) struct trust *roots = NULL;
        *e->fault = (struct fault){0};
        if (trust_parse_pem(bytes_text(rows[i].roots), &roots))
            return fault_set(e->fault, FAULT_INTERNAL, "the roots of group %s", rows[i].name);
        if (!tpm_ek_cert_check(roots, e->arena, e->rq->endorsement_chain,
                               e->rq->endorsement_chain_count, ek, clock_wall_s(), &verdict,
                               e->fault)) {
            *ret_row = &rows[i];
            return ERR_OK;
        }
        if (told.code == FAULT_NONE || told.code == FAULT_CA_NOT_REGISTERED)
            told = *e->fault;
    }
    if (told.code == FAULT_NONE)
        return fault_set(e->fault, FAULT_ENROLLMENT_UNKNOWN, "there is no group by TPMs");
    return fault_set(e->fault, FAULT_TPM_CERTIFICATE, "%.360s", told.detail);
}

enum err attest_tpm_group(struct enrolment *e, const struct enrollment_row *rows, size_t count,
                          const struct enrollment_row **ret_row)
{
    struct tpm_keys k = {0};
    enum err err = begin(e, &k);
    if (!err)
        err = group_find(e, &k.ek, rows, count, ret_row);
    if (!err)
        err = name_check(e, &k.ek);
    return err ? err : prove(e, &k);
}
