/* What the credential may do with this template and this key. */
#include "enroll/steps.h"
#include "pki/name.h"

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

static enum err credential_check(struct enrolment *e)
{
    if (e->credential == CREDENTIAL_DEVICE)
        return label_check(e);
    if (e->rq->renew)
        return fault_set(e->fault, FAULT_CERT_PURPOSE,
                         "a factory certificate cannot renew; use simpleenroll");
    unsigned need =
        e->credential == CREDENTIAL_TOKEN ? CREDENTIAL_SET_TOKEN : CREDENTIAL_SET_FACTORY;
    if (!(e->settings->credentials & need))
        return fault_set(e->fault, FAULT_TEMPLATE_CREDENTIAL, "template %s does not take a %s",
                         e->template->label, credential_name(e->credential));
    if (e->peer_ca && e->peer_ca->template && e->peer_ca->template->product != e->template->product)
        return fault_set(e->fault, FAULT_TEMPLATE_CREDENTIAL,
                         "CA %s is registered for product %s, template %s is of %s",
                         e->peer_ca->name, e->peer_ca->template->product->name, e->template->label,
                         e->template->product->name);
    return ERR_OK;
}

static enum err key_check(struct enrolment *e)
{
    if (!(e->settings->keys & e->csr.kind)) {
        const char *name = key_kind_name(e->csr.kind);
        return fault_set(e->fault, FAULT_CSR_KEY, "template %s does not allow %s",
                         e->template->label, name ? name : "this kind of key");
    }
    return ERR_OK;
}

/* RFC 7030 4.2.2: subject and SAN of a renewal are those of the certificate. */
static enum err renewal_check(struct enrolment *e)
{
    if (e->credential != CREDENTIAL_DEVICE)
        return ERR_OK;
    if (!name_equal(e->csr.subject_der, e->peer.leaf.subject_der))
        return fault_set(e->fault, FAULT_CSR_SUBJECT_CHANGED, "the certificate's subject is %s",
                         e->peer.leaf.subject_text);
    if (e->csr.san_der.len > 0 && !bytes_equal(e->csr.san_der, e->peer.leaf.san_der))
        return fault_set(e->fault, FAULT_CSR_SUBJECT_CHANGED,
                         "the subject alternative names differ from the certificate's");
    return ERR_OK;
}

enum err step_authorize(struct enrolment *e)
{
    enum err err = e->serial_known ? ERR_OK : enrolment_serial(e);
    if (!err)
        err = credential_check(e);
    if (!err)
        err = key_check(e);
    if (!err)
        err = renewal_check(e);
    return err;
}
