/* Whom the template asks before it provisions by a claim, and the parameters that come of it. */
#include <string.h>

#include "base/text.h"
#include "enroll/hooks.h"
#include "enroll/steps.h"
#include "pki/cert.h"

const char *enrolment_given(const struct enrolment *e, const char *name)
{
    for (size_t i = 0; i < e->given_count; i++) {
        if (strcmp(e->given[i].name, name) == 0)
            return e->given[i].value;
    }
    return NULL;
}

/* What the device says; in one step that is its serial. */
static void parameters_begin(struct enrolment *e)
{
    memcpy(e->given, e->rq->parameters, sizeof(e->given));
    e->given_count = e->rq->parameter_count;
    if (e->rq->flow == FLOW_ENROL)
        e->given[e->given_count++] =
            (struct enrollment_parameter){e->settings->serial_parameter, e->serial.given};
}

static enum err override_take(struct enrolment *e, const struct enrollment_parameter *p)
{
    size_t i = 0;
    if (strchr(p->name, ':'))
        return fault_set(e->fault, FAULT_HOOK_FAILED,
                         "it overrides \"%.80s\", which is not for hooks to give", p->name);
    while (i < e->given_count && strcmp(e->given[i].name, p->name) != 0)
        i++;
    if (i == ENROLLMENT_MAX_PARAMETERS)
        return fault_set(e->fault, FAULT_HOOK_FAILED, "with its overrides more than %d parameters",
                         ENROLLMENT_MAX_PARAMETERS);
    e->given[i] = *p;
    e->given_count += i == e->given_count;
    return ERR_OK;
}

/* In one step the certificate is not made yet: its serial may still change. */
static enum err question_fill(struct enrolment *e, struct hook_question *q)
{
    bool made = e->rq->flow == FLOW_REGISTER;
    *q = (struct hook_question){
        .url = e->settings->hook_url,
        .timeout_ms = e->settings->hook_timeout_ms,
        .request_id = e->rq->request_id,
        .product = e->template->product->name,
        .template_name = e->template->name,
        .template_version = e->template->version,
        .claim_name = e->claim.name,
        .claim_certificate_id = text_hex(e->arena, e->claim_fingerprint),
        .certificate_id = made ? text_hex(e->arena, e->owned.fingerprint) : NULL,
        .certificate_pem = made ? cert_pem(e->arena, e->owned.certificate) : NULL,
        .client_id = e->rq->client_id,
        .parameters = e->given,
        .parameter_count = e->given_count,
        .gate = e->rq->gate,
    };
    bool complete = q->claim_certificate_id && (!made || (q->certificate_id && q->certificate_pem));
    return complete ? ERR_OK : enrolment_no_memory(e);
}

enum err step_hook(struct enrolment *e)
{
    struct hook_question q;
    struct hook_answer answer = {.override_count = 0};
    bool asked = e->credential == CREDENTIAL_CLAIM && e->settings->hook_url;
    if (e->rq->flow == FLOW_REGISTER || asked)
        parameters_begin(e);
    if (!asked)
        return ERR_OK;
    enum err err = question_fill(e, &q);
    if (!err)
        err = hooks_ask(e->service->hooks, &q, e->arena, &answer, e->fault);
    for (size_t i = 0; i < answer.override_count && !err; i++)
        err = override_take(e, &answer.overrides[i]);
    if (err && e->fault->code == FAULT_NONE)
        return fault_set(e->fault, FAULT_INTERNAL, "asking the hook: %s", err_name(err));
    return err;
}
