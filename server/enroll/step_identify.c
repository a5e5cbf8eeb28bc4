/* Which device and which template the request is about, as far as the credential says. */
#include <string.h>

#include "enroll/steps.h"

static enum err template_choose(struct enrolment *e)
{
    const char *label = e->rq->template_name;
    if (e->credential == CREDENTIAL_DEVICE) {
        e->template = snapshot_template_by_id(e->snapshot, e->owner.template_id);
        if (!e->template)
            return fault_set(e->fault, FAULT_TEMPLATE_UNKNOWN, "the device's template is disabled");
        return ERR_OK;
    }
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

static const char *last_urn_part(const char *urn)
{
    const char *colon = urn ? strrchr(urn, ':') : NULL;
    return colon ? colon + 1 : NULL;
}

/* The serial in the factory certificate, or in the CSR of a token holder. */
static const char *serial_from_names(const struct enrolment *e)
{
    bool factory = e->credential == CREDENTIAL_FACTORY;
    switch (e->settings->serial) {
    case SERIAL_FROM_CN:
        return factory ? e->peer.leaf.cn : e->csr.cn;
    case SERIAL_FROM_SERIAL_NUMBER:
        return factory ? e->peer.leaf.subject_serial_number : e->csr.serial_number;
    case SERIAL_FROM_URN:
        return last_urn_part(factory ? e->peer.leaf.urn : e->csr.urn);
    }
    return NULL;
}

static enum err serial_missing(struct enrolment *e)
{
    if (e->credential == CREDENTIAL_FACTORY)
        return fault_set(e->fault, FAULT_CERT_NO_SERIAL, "factory certificate %s",
                         e->peer.leaf.subject_text);
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
    else if (e->credential == CREDENTIAL_FACTORY || !claimed)
        text = serial_from_names(e);
    if (!text)
        return serial_missing(e);
    if (serial_parse(rule, text, &e->serial))
        return fault_set(e->fault, FAULT_SERIAL_MALFORMED, "\"%.80s\"", text);
    e->serial_known = true;
    e->proven = e->credential == CREDENTIAL_DEVICE || e->credential == CREDENTIAL_FACTORY;
    struct serial also;
    if (text != claimed && claimed &&
        (serial_parse(rule, claimed, &also) || strcmp(also.canonical, e->serial.canonical) != 0))
        return fault_set(e->fault, FAULT_SERIAL_MISMATCH,
                         "the certificate is for %s, the request says \"%.80s\"", e->serial.given,
                         claimed);
    return ERR_OK;
}

/* How long after its end a certificate may still ask, if everything else about it is right. */
static enum err expiry_check(struct enrolment *e)
{
    int64_t grace_s = e->credential == CREDENTIAL_DEVICE ? e->settings->expired_renewal_s
                                                         : e->settings->expired_enrolment_s;
    if (e->expired.code == FAULT_NONE || e->peer.leaf_expired_s <= grace_s)
        return ERR_OK;
    *e->fault = e->expired;
    return ERR_DENIED;
}

enum err step_identify(struct enrolment *e)
{
    enum err err = template_choose(e);
    if (err)
        return err;
    e->settings = template_settings(e->template->compiled);
    err = expiry_check(e);
    if (err)
        return err;
    if (e->credential == CREDENTIAL_TOKEN && !e->rq->claimed_serial)
        return ERR_OK; /* the CSR names it */
    return enrolment_serial(e);
}
