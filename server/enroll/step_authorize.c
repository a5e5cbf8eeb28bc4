/* What this key may do, and whether a renewal stays what it was. */
#include "base/cleanup.h"
#include <string.h>

#include "base/text.h"
#include "enroll/steps.h"
#include "pki/name.h"

static enum err key_check(struct enrolment *e)
{
    if (e->bound && memcmp(e->csr.spki_sha256, e->bound_spki, SHA256_BYTES) != 0)
        return fault_set(e->fault, FAULT_TPM_KEY,
                         "the CSR's key is not the one that the TPM certified");
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

/* The same where there is no registration id: the serial counts, where the template looks for it.
 */
static enum err named_serial_check(struct enrolment *e)
{
    struct serial named;
    const char *text = enrolment_named_serial(e);
    if (text && (serial_parse(&e->template->product->rule, text, &named) ||
                 strcmp(named.canonical, e->serial.canonical) != 0))
        return fault_set(e->fault, FAULT_SERIAL_MISMATCH,
                         "the PSK is of %s, the CSR says \"%.80s\"", e->serial.given, text);
    return ERR_OK;
}

/* A request that names another device than the one that registers was meant for that one. */
static enum err registration_name_check(struct enrolment *e)
{
    const char *cn = e->csr.cn;
    if (e->credential == CREDENTIAL_ENROLLMENT && e->enrollment.attestation == ATTEST_PSK)
        return named_serial_check(e);
    if (e->credential != CREDENTIAL_ENROLLMENT || !cn || text_equal_nocase(cn, e->registration_id))
        return ERR_OK;
    return fault_set(e->fault, FAULT_ENROLLMENT_NAME, "the CSR's CN is \"%.80s\"", cn);
}

/* A certificate for a claim is for nobody yet: a serial in its CSR is only remembered. */
enum err step_authorize(struct enrolment *e)
{
    bool serial_wanted = e->rq->flow != FLOW_CREATE && !e->serial_known;
    enum err err = serial_wanted ? enrolment_serial(e) : ERR_OK;
    if (!err && e->rq->flow != FLOW_ASSIGN)
        err = key_check(e);
    if (!err)
        err = renewal_check(e);
    if (!err)
        err = registration_name_check(e);
    return err;
}
