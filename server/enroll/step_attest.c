/* Who registers, by an enrollment: a symmetric key or a certificate that was known before it came.
 */
#include <ctype.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limit.h"
#include "base/text.h"
#include "enroll/attest.h"
#include "enroll/secrets.h"
#include "enroll/steps.h"
#include "enroll/unknown_issuer.h"
#include "pki/seal.h"
#include "store/enrollment.h"

static enum err candidates(struct enrolment *e, enum attestation kind, int64_t ca_id,
                           struct enrollment_row **ret_rows, size_t *ret_count)
{
    enum err err = enrollment_candidates(e->service->db, e->registration_id, kind, ca_id, e->arena,
                                         ret_rows, ret_count);
    return err ? fault_set(e->fault, FAULT_DB_UNAVAILABLE, "looking up the enrollment: %s",
                           err_name(err))
               : ERR_OK;
}

/* The names under which a key may have been derived: ids are compared without regard to case, but
 * derived over bytes, and people type what they see. */
static bool derived_signed(const struct enrolment *e, struct bytes master)
{
    const char *const names[] = {e->rq->registration_id, e->registration_id};
    size_t count = strcmp(names[0], names[1]) == 0 ? 1 : ARRAY_LEN(names);
    bool good = false;
    for (size_t i = 0; i < count && !good; i++) {
        uint8_t key[SHA256_BYTES];
        good = secrets_derive(master, names[i], key) == ERR_OK &&
               secrets_signed(bytes_of(key, sizeof(key)), e->rq->signed_text, e->rq->signature);
        secret_cleanse(key, sizeof(key));
    }
    return good;
}

static bool slot_signed(const struct enrolment *e, const struct enrollment_row *row,
                        enum secrets_slot slot)
{
    _cleanup_(buf_donep) struct buf place = {0}, key = {0};
    buf_init(&place, SECRETS_MAX_PLACE_BYTES);
    buf_init(&key, SECRETS_MAX_KEY_BYTES);
    secrets_place(&place, row->grouped, row->name_lower, slot);
    if (place.overflow || seal_open(e->service->sealer, buf_text(&place), row->keys[slot], &key))
        return false;
    bool good = row->grouped
                    ? derived_signed(e, buf_bytes(&key))
                    : secrets_signed(buf_bytes(&key), e->rq->signed_text, e->rq->signature);
    secret_cleanse(key.data, key.len);
    return good;
}

static enum err signature_check(struct enrolment *e, const struct enrollment_row *rows,
                                size_t count, const struct enrollment_row **ret_row)
{
    if (!e->service->sealer)
        return fault_set(e->fault, FAULT_SECRETS_UNAVAILABLE, "[secrets] key is not set");
    for (size_t i = 0; i < count; i++) {
        if (slot_signed(e, &rows[i], SECRETS_PRIMARY) ||
            slot_signed(e, &rows[i], SECRETS_SECONDARY)) {
            *ret_row = &rows[i];
            return ERR_OK;
        }
    }
    return fault_set(e->fault, FAULT_ENROLLMENT_KEY,
                     rows[0].grouped
                         ? "there is no individual enrollment, and no group's key signed"
                         : "neither key of the individual enrollment signed");
}

static enum err leaf_name_check(struct enrolment *e)
{
    const char *cn = e->peer.leaf.cn;
    if (cn && text_equal_nocase(cn, e->registration_id))
        return ERR_OK;
    return fault_set(e->fault, FAULT_ENROLLMENT_NAME, "the certificate's CN is \"%.80s\"",
                     cn ? cn : "");
}

/* A certificate that is pinned needs no CA; only its times count. */
static enum err pinned_check(struct enrolment *e, const struct enrollment_row *row)
{
    _cleanup_(cert_freep) X509 *x = NULL;
    struct cert_info *leaf = &e->peer.leaf;
    if (e->rq->chain_count == 0)
        return fault_set(e->fault, FAULT_ENROLLMENT_KEY,
                         "the enrollment is for a client certificate, and there is none in TLS");
    enum err err = cert_decode(e->rq->chain[0], &x);
    if (!err)
        err = cert_describe(e->arena, x, leaf);
    if (err)
        return fault_set(e->fault, FAULT_CHAIN_MALFORMED, "the leaf");
    struct bytes fp = bytes_of(leaf->fingerprint, SHA256_BYTES);
    if (!bytes_equal(fp, row->certificates[0]) && !bytes_equal(fp, row->certificates[1]))
        return fault_set(e->fault, FAULT_ENROLLMENT_KEY,
                         "the client certificate is not one of the enrollment's");
    int64_t now_s = clock_wall_s();
    if (leaf->not_after_s < now_s)
        return fault_set(e->fault, FAULT_CERT_EXPIRED, "%s ended %lld s ago", leaf->subject_text,
                         (long long)(now_s - leaf->not_after_s));
    if (leaf->not_before_s > now_s)
        return fault_set(e->fault, FAULT_CERT_NOT_YET, "%s begins in %lld s", leaf->subject_text,
                         (long long)(leaf->not_before_s - now_s));
    return leaf_name_check(e);
}

/* The nearest registered CA above the certificate decides which group it is of. */
static enum err group_by_chain(struct enrolment *e, const struct enrollment_row **ret_row)
{
    struct enrollment_row *rows = NULL;
    size_t count = 0;
    enum err err = chain_verify(snapshot_trust(e->snapshot), e->arena, e->rq->chain,
                                e->rq->chain_count, clock_wall_s(), &e->peer, e->fault);
    if (err) {
        if (e->fault->code == FAULT_NONE)
            return fault_set(e->fault, FAULT_INTERNAL, "verifying the chain: %s", err_name(err));
        unknown_issuer_note(e);
        return err;
    }
    err = candidates(e, ATTEST_X509, e->peer.anchor_id, &rows, &count);
    if (err)
        return err;
    if (count == 0)
        return fault_set(e->fault, FAULT_ENROLLMENT_UNKNOWN,
                         "no individual enrollment, and no group of the CA of %s",
                         e->peer.leaf.subject_text);
    *ret_row = &rows[0];
    return leaf_name_check(e);
}

static enum err individual_check(struct enrolment *e, const struct enrollment_row *row)
{
    const struct enrollment_row *found = NULL;
    switch (row->attestation) {
    case ATTEST_SYMMETRIC:
        if (e->rq->signature.len == 0)
            break;
        return signature_check(e, row, 1, &found);
    case ATTEST_X509:
        return pinned_check(e, row);
    case ATTEST_TPM:
        if (e->rq->endorsement_key.len == 0)
            break;
        return attest_tpm(e, row);
    case ATTEST_PSK: /* has groups only */
        break;
    }
    return fault_set(e->fault, FAULT_ENROLLMENT_KEY, "the enrollment is by another attestation");
}

/* Before anything is looked up, which would tell a stranger what ids there are; and guessing must
 * not cost the keys of two hundred groups each time. */
static enum err credential_check(struct enrolment *e)
{
    const struct enrollment_request *rq = e->rq;
    if (rq->endorsement_key.len == 0 && rq->signature.len == 0 && rq->chain_count == 0)
        return fault_set(e->fault, FAULT_AUTH_REQUIRED, "no signature and no client certificate");
    if (!source_limit_left(e->service->token_limit, rq->source, clock_mono_us()))
        return fault_set(e->fault, FAULT_RATE_LIMITED,
                         "too many refused credentials from this source");
    return ERR_OK;
}

static enum err attest(struct enrolment *e, const struct enrollment_row **ret_row)
{
    struct enrollment_row *rows = NULL;
    size_t count = 0;
    bool tpm = e->rq->endorsement_key.len > 0;
    enum attestation kind = tpm                        ? ATTEST_TPM
                            : e->rq->signature.len > 0 ? ATTEST_SYMMETRIC
                                                       : ATTEST_X509;
    enum err err = candidates(e, kind, 0, &rows, &count);
    if (err)
        return err;
    if (count > 0 && !rows[0].grouped) {
        *ret_row = rows;
        return individual_check(e, rows);
    }
    if (tpm)
        return attest_tpm_group(e, rows, count, ret_row);
    if (e->rq->signature.len > 0)
        return count > 0 ? signature_check(e, rows, count, ret_row)
                         : fault_set(e->fault, FAULT_ENROLLMENT_UNKNOWN,
                                     "no individual enrollment, and no group by symmetric keys");
    return group_by_chain(e, ret_row);
}

enum err step_attest(struct enrolment *e)
{
    const struct enrollment_row *row = NULL;
    char *lower = arena_strdup(e->arena, e->rq->registration_id);
    if (!lower)
        return enrolment_no_memory(e);
    for (char *c = lower; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    e->registration_id = lower;
    enum err err = credential_check(e);
    if (!err)
        err = attest(e, &row);
    if (err)
        return err;
    e->credential = CREDENTIAL_ENROLLMENT;
    e->enrollment = *row;
    return row->enabled ? ERR_OK
                        : fault_set(e->fault, FAULT_ENROLLMENT_DISABLED, "%s %s",
                                    row->grouped ? "group" : "individual enrollment", row->name);
}
