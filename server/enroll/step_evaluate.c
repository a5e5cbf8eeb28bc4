/* The template's answer to this device: the certificate to make. */
#include <string.h>

#include "enroll/steps.h"

/* The values a template may use. The subject's parts come from a factory certificate, for which
 * its CA stands; what a CSR says of its device is nobody's word but the device's, and might be
 * a wildcard in a policy. */
static enum err params_fill(struct enrolment *e)
{
    for (size_t i = 0; i < e->given_count; i++) {
        bool serial = strcmp(e->given[i].name, "SerialNumber") == 0;
        if (!serial && template_params_add(&e->params, e->given[i].name, e->given[i].value))
            return fault_set(e->fault, FAULT_INTERNAL, "too many template values");
    }
    static const struct cert_info nobody;
    const struct cert_info *leaf = enrolment_by_factory(e) ? &e->peer.leaf : &nobody;
    const struct template_param values[] = {
        {"SerialNumber", e->serial.given},
        {"Muster::Serial", e->serial.given},
        {"Muster::Product", e->template->product->name},
        {"AWS::IoT::Certificate::CommonName", leaf->cn},
        {"AWS::IoT::Certificate::SerialNumber", leaf->subject_serial_number},
        {"AWS::IoT::Certificate::Country", leaf->country},
        {"AWS::IoT::Certificate::Organization", leaf->organization},
        {"AWS::IoT::Certificate::OrganizationalUnit", leaf->organizational_unit},
        {"AWS::IoT::Certificate::StateName", leaf->state_name},
        {"AWS::IoT::Certificate::DistinguishedNameQualifier", leaf->dn_qualifier},
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
    const struct template *t = e->template->compiled;
    bool made = e->rq->flow != FLOW_ENROL && e->rq->flow != FLOW_CERTIFY; /* or none is wanted */
    bool given = e->rq->flow == FLOW_REGISTER || e->given_count > 0;
    enum err err = given ? enrolment_serial(e) : ERR_OK;
    if (err)
        return err;
    if (e->credential == CREDENTIAL_DEVICE) {
        e->profile = *template_renewal_profile(t);
        return ERR_OK;
    }
    err = params_fill(e);
    if (!err && !made)
        err = template_profile(t, &e->params, e->arena, &e->profile, e->fault);
    if (err && e->fault->code == FAULT_NONE)
        return fault_set(e->fault, FAULT_INTERNAL, "evaluating the template: %s", err_name(err));
    return err || made ? err : identity_ensure(e);
}
