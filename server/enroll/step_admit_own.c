/* A certificate of our own CAs that the registry lost: while an operator trusts in such, its first
 * contact registers it, by what it says itself. The registry judges it when it is recorded. */
#include <string.h>

#include "base/clock.h"
#include "enroll/steps.h"
#include "pki/identity.h"

/* What a claim was given before it was known for which device: its name is a number of nobody. */
static bool is_unregistered(const struct cert_info *leaf)
{
    static const char uuid[] = "urn:uuid:";
    return leaf->urn && leaf->cn && strncmp(leaf->urn, uuid, strlen(uuid)) == 0 &&
           strcmp(leaf->urn + strlen(uuid), leaf->cn) == 0;
}

static enum err name_read(struct enrolment *e)
{
    struct identity who = {0};
    const struct cert_info *leaf = &e->peer.leaf;
    enum err err = identity_read(leaf->san_der, e->arena, &who);
    if (err == ERR_NO_MEMORY)
        return enrolment_no_memory(e);
    if (leaf->urn && strncmp(leaf->urn, CLAIM_URN, strlen(CLAIM_URN)) == 0)
        return fault_set(e->fault, FAULT_CERT_PURPOSE, "it is the certificate of a claim");
    if (err && is_unregistered(leaf))
        return fault_set(e->fault, FAULT_CERT_NO_SERIAL, "it was made for a claim: %s",
                         leaf->subject_text);
    if (!err) {
        e->own_product = who.product;
        e->own_serial = who.serial;
    }
    return ERR_OK;
}

enum err admit_own(struct enrolment *e)
{
    if (!catalog_ca_trusts(e->peer_ca, clock_wall_s()))
        return fault_set(e->fault, FAULT_CERT_UNKNOWN,
                         "our CA signed %s, the registry does not have it",
                         e->peer.leaf.subject_text);
    if (e->expired.code != FAULT_NONE) {
        *e->fault = e->expired;
        return ERR_DENIED;
    }
    e->own = true;
    return name_read(e);
}

/* The operator's, or the only one of the product that the certificate names. */
enum err admit_own_template(struct enrolment *e)
{
    int64_t id = e->peer_ca->trust_template_id;
    e->template = id ? snapshot_template_by_id(e->snapshot, id)
                     : snapshot_only_template(e->snapshot, e->own_product);
    if (!e->template)
        return fault_set(e->fault, FAULT_TEMPLATE_NO_DEFAULT,
                         "product %s has not one enabled template; muster registry trust-own "
                         "--template",
                         e->own_product ? e->own_product : "(none is named)");
    if (e->own_product && strcmp(e->own_product, e->template->product->name) != 0)
        return fault_set(e->fault, FAULT_TEMPLATE_CREDENTIAL,
                         "the certificate is of product %s, template %s of %s", e->own_product,
                         e->template->label, e->template->product->name);
    return ERR_OK;
}
