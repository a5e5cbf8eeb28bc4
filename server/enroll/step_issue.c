/* Signing, in memory: nothing leaves the process before it is recorded. */
#include "base/clock.h"
#include "base/text.h"
#include "enroll/steps.h"

static enum err sign(struct enrolment *e)
{
    const struct issuer *issuer = snapshot_issuer(e->snapshot, e->settings->issuer);
    int64_t now_s = clock_wall_s();
    struct bytes none = {0};
    bool renewal = e->credential == CREDENTIAL_DEVICE;
    if (!issuer || issuer_not_after_s(issuer) <= now_s)
        return fault_set(e->fault, FAULT_CA_NO_ISSUER, "%s",
                         e->settings->issuer ? e->settings->issuer
                                             : "none is active, or its key cannot be used");
    enum err err =
        issuer_sign(issuer, &e->csr, &e->profile, renewal ? e->peer.leaf.subject_der : none,
                    renewal ? e->peer.leaf.san_der : none, now_s, e->arena, &e->issued);
    e->issuer = issuer;
    if (err)
        return fault_set(e->fault, FAULT_INTERNAL, "signing with %s: %s", issuer_name(issuer),
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
