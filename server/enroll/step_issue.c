/* Signing, in memory: nothing leaves the process before it is recorded. */
#include <string.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/text.h"
#include "enroll/steps.h"

static enum err issuer_choose(struct enrolment *e, int64_t now_s)
{
    e->issuer = snapshot_issuer(e->snapshot, e->settings->issuer);
    if (e->issuer && issuer_not_after_s(e->issuer) > now_s)
        return ERR_OK;
    return fault_set(e->fault, FAULT_CA_NO_ISSUER, "%s",
                     e->settings->issuer ? e->settings->issuer
                                         : "none is active, or its key cannot be used");
}

/* A stranger's word must not cost an RSA key. */
static enum err keygen_allowed(struct enrolment *e)
{
    if (e->rq->flow == FLOW_CREATE)
        return create_allowed(e);
    struct enrol_outcome o = {0};
    const struct enrol_record r = {
        .request_id = e->rq->request_id,
        .credential = credential_name(e->credential),
        .product_id = e->template->product->id,
        .template_id = e->template->id,
        .template_label = e->template->label,
        .serial = e->serial.given,
        .serial_canonical = e->serial.canonical,
        .token_hash = e->credential == CREDENTIAL_TOKEN ? bytes_of(e->token_hash, SHA256_BYTES)
                                                        : bytes_of(NULL, 0),
        .allowlist_required = e->settings->allowlist_required,
        .approval = e->settings->approval_required && e->credential != CREDENTIAL_DEVICE,
        .claim_id = e->credential == CREDENTIAL_CLAIM ? e->claim.id : 0,
        .claim_late = e->expired.code != FAULT_NONE,
    };
    enum err err = enrol_keygen_check(e->service->db, &r, e->arena, &o);
    return enrolment_judged(e, err, &o, "asking the registry");
}

/* The device's key, where it is made here, ready to travel: an enrolment that could not be
 * answered must not be recorded. The key itself is kept nowhere. */
static enum err key_make(struct enrolment *e)
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    if (!e->rq->server_key)
        return ERR_OK;
    enum err err = keygen_allowed(e);
    if (err)
        return err;
    err = keygen_make(&e->csr, &key);
    if (!err)
        err = keygen_deliver(e->arena, key, &e->wish, e->issuer, &e->result.private_key);
    e->result.key_enveloped = e->wish.encrypted;
    return err ? fault_set(e->fault, FAULT_INTERNAL, "making a key: %s", err_name(err)) : ERR_OK;
}

/* Whoever it will be: a name that no other certificate has (RFC 9562). Template and device are not
 * known yet, so the rest comes from the claim's template. */
static enum err profile_for_nobody(struct enrolment *e)
{
    char id[ID_TEXT_BYTES];
    if (id_new(id))
        return fault_set(e->fault, FAULT_INTERNAL, "random numbers");
    const char *uuid =
        arena_printf(e->arena, "%.8s-%.4s-%.4s-%.4s-%.12s", id, id + 8, id + 12, id + 16, id + 20);
    const char *urn = uuid ? arena_printf(e->arena, "urn:uuid:%s", uuid) : NULL;
    if (!urn)
        return enrolment_no_memory(e);
    e->profile = *template_renewal_profile(e->template->compiled);
    e->profile.subject[0] = (struct rdn){"CN", uuid};
    e->profile.subject_count = 1;
    e->profile.san[0] = (struct san){SAN_URI, urn};
    e->profile.san_count = 1;
    return ERR_OK;
}

static enum err sign(struct enrolment *e)
{
    int64_t now_s = clock_wall_s();
    struct bytes none = {0};
    bool renewal = e->credential == CREDENTIAL_DEVICE;
    enum err err = issuer_choose(e, now_s);
    if (!err)
        err = key_make(e);
    if (err)
        return err;
    err = crls_addresses(&e->service->revocation, e->issuer, e->csr.spki_sha256, e->arena,
                         &e->profile);
    if (err)
        return enrolment_no_memory(e);
    err = issuer_sign(e->issuer, &e->csr, &e->profile, renewal ? e->peer.leaf.subject_der : none,
                      renewal ? e->peer.leaf.san_der : none, now_s, e->arena, &e->issued);
    if (err == ERR_SYSTEM) {
        issuer_failed(e->issuer);
        catalog_key_failed(e->service->catalog);
        return fault_set(e->fault, FAULT_CA_NO_ISSUER, "the key of %s does not sign",
                         issuer_name(e->issuer));
    }
    if (err)
        return fault_set(e->fault, FAULT_INTERNAL, "signing with %s: %s", issuer_name(e->issuer),
                         err_name(err));
    return ERR_OK;
}

enum err step_issue(struct enrolment *e)
{
    enum err err = e->rq->flow == FLOW_CREATE ? profile_for_nobody(e) : ERR_OK;
    bool assign = e->rq->flow == FLOW_ASSIGN;
    bool made = e->rq->flow == FLOW_REGISTER || e->rq->flow == FLOW_ADMIT || assign;
    if (!err && !made)
        err = sign(e);
    if (err || e->rq->flow == FLOW_CREATE || e->credential == CREDENTIAL_DEVICE)
        return err;
    /* of no certificate there is none */
    const char *id =
        assign ? "" : text_hex(e->arena, bytes_of(e->issued.fingerprint, SHA256_BYTES));
    if (!id)
        return enrolment_no_memory(e);
    if (template_params_add(&e->params, "AWS::IoT::Certificate::Id", id))
        return fault_set(e->fault, FAULT_INTERNAL, "too many template values");
    if (e->rq->flow == FLOW_ADMIT && !e->own)
        err = template_declared(e->template->compiled, &e->params, e->arena, e->fault);
    if (!err)
        err = template_registration(e->template->compiled, &e->params, e->arena, &e->registration,
                                    e->fault);
    if (err && e->fault->code == FAULT_NONE)
        return fault_set(e->fault, FAULT_INTERNAL, "evaluating the template: %s", err_name(err));
    return err;
}
