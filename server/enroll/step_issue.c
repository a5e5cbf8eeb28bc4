/* Signing, in memory: nothing leaves the process before it is recorded. */
#include "base/clock.h"
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

/* The device's key, where it is made here, ready to travel: an enrolment that could not be
 * answered must not be recorded. The key itself is kept nowhere. */
static enum err key_make(struct enrolment *e)
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    if (!e->rq->server_key)
        return ERR_OK;
    enum err err = keygen_make(&e->csr, &key);
    if (!err)
        err = keygen_deliver(e->arena, key, &e->wish, e->issuer, &e->result.private_key);
    e->result.key_enveloped = e->wish.encrypted;
    return err ? fault_set(e->fault, FAULT_INTERNAL, "making a key: %s", err_name(err)) : ERR_OK;
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
    err = issuer_sign(e->issuer, &e->csr, &e->profile, renewal ? e->peer.leaf.subject_der : none,
                      renewal ? e->peer.leaf.san_der : none, now_s, e->arena, &e->issued);
    if (err)
        return fault_set(e->fault, FAULT_INTERNAL, "signing with %s: %s", issuer_name(e->issuer),
                         err_name(err));
    return ERR_OK;
}

enum err step_issue(struct enrolment *e)
{
    enum err err = sign(e);
    if (err || e->credential == CREDENTIAL_DEVICE)
        return err;
    const char *id = text_hex(e->arena, bytes_of(e->issued.fingerprint, SHA256_BYTES));
    if (!id)
        return enrolment_no_memory(e);
    if (template_params_add(&e->params, "AWS::IoT::Certificate::Id", id))
        return fault_set(e->fault, FAULT_INTERNAL, "too many template values");
    err = template_registration(e->template->compiled, &e->params, e->arena, &e->registration,
                                e->fault);
    if (err && e->fault->code == FAULT_NONE)
        return fault_set(e->fault, FAULT_INTERNAL, "evaluating the template: %s", err_name(err));
    return err;
}
