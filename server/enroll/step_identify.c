/* Which device and which template the request is about, as far as the credential says. */
#include <string.h>

#include "enroll/steps.h"

static enum err claim_template_choose(struct enrolment *e)
{
    const char *label = e->rq->template_name;
    e->template = label ? snapshot_template(e->snapshot, label)
                        : snapshot_template_by_id(e->snapshot, e->claim.template_id);
    if (!e->template)
        return fault_set(e->fault, FAULT_TEMPLATE_UNKNOWN, "no enabled template \"%.80s\"",
                         label ? label : "of the claim");
    if (!claim_row_allows(&e->claim, e->template->id))
        return fault_set(e->fault, FAULT_CLAIM_TEMPLATE, "claim %s is not for template %s",
                         e->claim.name, e->template->label);
    return ERR_OK;
}

static enum err enrollment_template_choose(struct enrolment *e)
{
    const char *label = e->rq->template_name;
    e->template = snapshot_template_by_id(e->snapshot, e->enrollment.template_id);
    if (!e->template)
        return fault_set(e->fault, FAULT_TEMPLATE_UNKNOWN,
                         "the template of enrollment %s is disabled", e->enrollment.name);
    if (label && strcmp(label, e->template->name) != 0)
        return fault_set(e->fault, FAULT_TEMPLATE_CREDENTIAL, "enrollment %s is for template %s",
                         e->enrollment.name, e->template->label);
    return ERR_OK;
}

/* The one an operator named, or its CA's; the default template is nobody's word for it. */
static enum err jit_template_choose(struct enrolment *e)
{
    const char *label = e->rq->vouch != VOUCH_NONE ? e->rq->template_name : NULL;
    int64_t id = e->known.template_id ? e->known.template_id : e->peer_ca->template_id;
    if (!label && id == 0)
        return fault_set(e->fault, FAULT_TEMPLATE_NO_DEFAULT, "CA %s has no template",
                         e->peer_ca->name);
    e->template =
        label ? snapshot_template(e->snapshot, label) : snapshot_template_by_id(e->snapshot, id);
    return e->template ? ERR_OK
                       : fault_set(e->fault, FAULT_TEMPLATE_UNKNOWN, "no enabled template \"%s\"",
                                   label ? label : "of the CA");
}

static enum err template_choose(struct enrolment *e)
{
    const char *label = e->rq->template_name;
    if (e->own)
        return admit_own_template(e);
    if (e->credential == CREDENTIAL_JIT)
        return jit_template_choose(e);
    if (e->credential == CREDENTIAL_DEVICE) {
        e->template = snapshot_template_by_id(e->snapshot, e->owner.template_id);
        if (!e->template)
            return fault_set(e->fault, FAULT_TEMPLATE_UNKNOWN, "the device's template is disabled");
        return ERR_OK;
    }
    if (e->credential == CREDENTIAL_ENROLLMENT)
        return enrollment_template_choose(e);
    if (e->credential == CREDENTIAL_CLAIM)
        return claim_template_choose(e);
    if (e->peer_ca && e->peer_ca->template_id != 0 && !e->peer_ca->template)
        return fault_set(e->fault, FAULT_TEMPLATE_UNKNOWN, "the template of CA %s is disabled",
                         e->peer_ca->name);
    if (!label && e->peer_ca && e->peer_ca->template) {
        e->template = e->peer_ca->template;
        return ERR_OK;
    }
    if (!label)
        label = e->service->default_template;
    if (!label)
        return fault_set(e->fault, FAULT_TEMPLATE_NO_DEFAULT,
                         "no label, and default_template is not set");
    e->template = snapshot_template(e->snapshot, label);
    if (!e->template)
        return fault_set(e->fault, FAULT_TEMPLATE_UNKNOWN, "no enabled template \"%s\"", label);
    return ERR_OK;
}

/* What stands behind the name space and its first part, colons and all: of urn:dev:mac:00:11 it is
 * 00:11, of urn:uuid:X it is X. */
static const char *urn_serial(const char *urn)
{
    const char *at = urn ? strchr(urn + strlen("urn:"), ':') : NULL;
    const char *part = at ? strchr(at + 1, ':') : NULL;
    if (part)
        return part + 1;
    return at ? at + 1 : NULL;
}

bool enrolment_by_certificate(const struct enrolment *e)
{
    return e->credential == CREDENTIAL_ENROLLMENT && e->enrollment.attestation == ATTEST_X509;
}

bool enrolment_by_factory(const struct enrolment *e)
{
    return e->credential == CREDENTIAL_FACTORY || e->credential == CREDENTIAL_JIT;
}

const char *enrolment_named_serial(const struct enrolment *e)
{
    bool factory = enrolment_by_factory(e);
    if (e->own_serial)
        return e->own_serial;
    switch (e->settings->serial) {
    case SERIAL_FROM_CN:
        return factory ? e->peer.leaf.cn : e->csr.cn;
    case SERIAL_FROM_SERIAL_NUMBER:
        return factory ? e->peer.leaf.subject_serial_number : e->csr.serial_number;
    case SERIAL_FROM_URN:
        return urn_serial(factory ? e->peer.leaf.urn : e->csr.urn);
    }
    return NULL;
}

/* What the device or the hook says; where a registration says nothing, what the CSR said. */
static const char *serial_from_parameters(const struct enrolment *e)
{
    const char *text = enrolment_given(e, e->settings->serial_parameter);
    if (text || e->rq->flow == FLOW_ENROL)
        return text;
    return e->rq->flow == FLOW_REGISTER ? e->owned.csr_serial : enrolment_named_serial(e);
}

static enum err serial_missing(struct enrolment *e)
{
    if (enrolment_by_factory(e))
        return fault_set(e->fault, FAULT_CERT_NO_SERIAL, "factory certificate %s",
                         e->peer.leaf.subject_text);
    if (e->rq->flow == FLOW_REGISTER)
        return fault_set(e->fault, FAULT_SERIAL_MISSING,
                         "parameter \"%s\" is missing, and the CSR named no serial",
                         e->settings->serial_parameter);
    return fault_set(e->fault, FAULT_SERIAL_MISSING,
                     "neither the credential nor the CSR names a serial");
}

/* The serial of the credential, or what the CSR says where the credential names none. */
enum err enrolment_serial(struct enrolment *e)
{
    const struct serial_rule *rule = &e->template->product->rule;
    const char *claimed = e->rq->claimed_serial;
    const char *text = claimed;
    if (e->credential == CREDENTIAL_DEVICE)
        text = e->owner.serial;
    else if (e->credential == CREDENTIAL_ENROLLMENT)
        text = e->enrollment.serial ? e->enrollment.serial : e->registration_id;
    else if (e->rq->flow == FLOW_REGISTER || e->given_count > 0)
        text = serial_from_parameters(e);
    else if (enrolment_by_factory(e) || !claimed)
        text = enrolment_named_serial(e);
    if (!text)
        return serial_missing(e);
    if (serial_parse(rule, text, &e->serial))
        return fault_set(e->fault, FAULT_SERIAL_MALFORMED, "\"%.80s\"", text);
    e->serial_known = true;
    e->proven = e->credential == CREDENTIAL_DEVICE || e->credential == CREDENTIAL_ENROLLMENT ||
                enrolment_by_factory(e);
    struct serial also;
    if (text != claimed && claimed && e->given_count == 0 &&
        (serial_parse(rule, claimed, &also) || strcmp(also.canonical, e->serial.canonical) != 0))
        return fault_set(e->fault, FAULT_SERIAL_MISMATCH,
                         "the certificate is for %s, the request says \"%.80s\"", e->serial.given,
                         claimed);
    return ERR_OK;
}

/* A renewal under a label must be of that label's product line; its template stays its own. */
static enum err label_check(struct enrolment *e)
{
    if (e->credential != CREDENTIAL_DEVICE || !e->rq->template_name)
        return ERR_OK;
    const struct catalog_template *named = snapshot_template(e->snapshot, e->rq->template_name);
    if (!named)
        return fault_set(e->fault, FAULT_TEMPLATE_UNKNOWN, "no enabled template \"%s\"",
                         e->rq->template_name);
    if (named->product != e->template->product)
        return fault_set(e->fault, FAULT_TEMPLATE_CREDENTIAL,
                         "the device is of product %s, the label of %s", e->template->product->name,
                         named->product->name);
    return ERR_OK;
}

/* Before anything counts as proven: a credential proves nothing where it may not be used. */
static enum err credential_check(struct enrolment *e)
{
    if (e->credential == CREDENTIAL_DEVICE)
        return label_check(e);
    if (e->own || e->credential == CREDENTIAL_ENROLLMENT) /* an operator's word admits it */
        return ERR_OK;
    if (e->rq->renew)
        return fault_set(e->fault, FAULT_CERT_PURPOSE,
                         "a factory certificate cannot renew; use simpleenroll");
    static const unsigned needs[] = {[CREDENTIAL_TOKEN] = CREDENTIAL_SET_TOKEN,
                                     [CREDENTIAL_FACTORY] = CREDENTIAL_SET_FACTORY,
                                     [CREDENTIAL_CLAIM] = CREDENTIAL_SET_CLAIM,
                                     [CREDENTIAL_JIT] = CREDENTIAL_SET_FACTORY};
    if (!(e->settings->credentials & needs[e->credential]))
        return fault_set(e->fault, FAULT_TEMPLATE_CREDENTIAL, "template %s does not take a %s",
                         e->template->label, credential_name(e->credential));
    bool any = e->peer_ca && e->peer_ca->template_id == 0 && e->rq->vouch != VOUCH_HEARSAY;
    if (enrolment_by_factory(e) && !any && e->peer_ca->product_id != e->template->product->id)
        return fault_set(e->fault, FAULT_TEMPLATE_CREDENTIAL,
                         "CA %s is registered for another product than %s of template %s",
                         e->peer_ca->name, e->template->product->name, e->template->label);
    return ERR_OK;
}

/* How long after its end a certificate may still ask, if everything else about it is right. */
static enum err expiry_check(struct enrolment *e)
{
    int64_t grace_s = e->credential == CREDENTIAL_DEVICE  ? e->settings->expired_renewal_s
                      : e->credential == CREDENTIAL_CLAIM ? e->claim.grace_s
                                                          : e->settings->expired_enrolment_s;
    if (e->expired.code == FAULT_NONE || e->peer.leaf_expired_s <= grace_s)
        return ERR_OK;
    *e->fault = e->expired;
    return ERR_DENIED;
}

enum err step_identify(struct enrolment *e)
{
    enum err err = template_choose(e);
    if (e->template)
        e->settings = template_settings(e->template->compiled);
    if (err)
        return err;
    err = expiry_check(e);
    if (!err)
        err = credential_check(e);
    if (err)
        return err;
    bool shared = e->credential == CREDENTIAL_TOKEN || e->credential == CREDENTIAL_CLAIM;
    bool later = e->rq->flow == FLOW_CREATE || e->rq->flow == FLOW_REGISTER;
    if (later || (shared && !e->rq->claimed_serial))
        return ERR_OK; /* the CSR names it, or the parameters do */
    return enrolment_serial(e);
}
