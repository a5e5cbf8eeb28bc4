/* The template's answer to this device: the certificate to make. */
#include <string.h>

#include "enroll/steps.h"

/* The values a template may use. The subject's parts come from the certificate that a factory
 * device presents, otherwise from the CSR. */
static enum err params_fill(struct enrolment *e)
{
    bool certified = e->credential == CREDENTIAL_FACTORY;
    const struct cert_info *leaf = &e->peer.leaf;
    const struct csr *csr = &e->csr;
    const struct template_param values[] = {
        {"SerialNumber", e->serial.given},
        {"Muster::Serial", e->serial.given},
        {"Muster::Product", e->template->product->name},
        {"AWS::IoT::Certificate::CommonName", certified ? leaf->cn : csr->cn},
        {"AWS::IoT::Certificate::SerialNumber",
         certified ? leaf->subject_serial_number : csr->serial_number},
        {"AWS::IoT::Certificate::Country", certified ? leaf->country : csr->country},
        {"AWS::IoT::Certificate::Organization", certified ? leaf->organization : csr->organization},
        {"AWS::IoT::Certificate::OrganizationalUnit",
         certified ? leaf->organizational_unit : csr->organizational_unit},
        {"AWS::IoT::Certificate::StateName", certified ? leaf->state_name : csr->state_name},
        {"AWS::IoT::Certificate::DistinguishedNameQualifier",
         certified ? leaf->dn_qualifier : csr->dn_qualifier},
    };
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        if (template_params_add(&e->params, values[i].name, values[i].value))
            return fault_set(e->fault, FAULT_INTERNAL, "too many template values");
    }
    return ERR_OK;
}

/* A certificate alone must be able to rebuild its registry row. */
static enum err identity_ensure(struct enrolment *e)
{
    struct cert_profile *p = &e->profile;
    const char *urn =
        arena_printf(e->arena, "urn:muster:%s:%s", e->template->product->name, e->serial.given);
    if (!urn)
        return enrolment_no_memory(e);
    for (size_t i = 0; i < p->san_count; i++) {
        if (p->san[i].kind == SAN_URI && strcmp(p->san[i].value, urn) == 0)
            return ERR_OK;
    }
    if (p->san_count == PROFILE_MAX_SAN)
        return fault_set(e->fault, FAULT_TEMPLATE_EVALUATION,
                         "$.Muster.SubjectAltNames leaves no room for %s", urn);
    p->san[p->san_count++] = (struct san){SAN_URI, urn};
    return ERR_OK;
}

enum err step_evaluate(struct enrolment *e)
{
    enum err err = params_fill(e);
    if (!err)
        err = template_profile(e->template->compiled, &e->params, e->arena, &e->profile, e->fault);
    if (err && e->fault->code == FAULT_NONE)
        return fault_set(e->fault, FAULT_INTERNAL, "evaluating the template: %s", err_name(err));
    /* a renewal copies subject and SAN of the certificate it renews */
    if (!err && e->credential != CREDENTIAL_DEVICE)
        err = identity_ensure(e);
    return err;
}
