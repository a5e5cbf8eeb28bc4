/* Whether it is this request's turn: the last step before work is done and anything is consumed. */
#include "enroll/limits.h"
#include "enroll/steps.h"

static struct limit_key template_key(const struct enrolment *e)
{
    return (struct limit_key){
        LIMIT_TEMPLATE, e->template->id, {e->settings->rate_per_second, e->settings->rate_burst}};
}

static struct limit_key claim_key(const struct enrolment *e)
{
    return (struct limit_key){
        LIMIT_CLAIM, e->claim.id, {e->claim.rate_per_second, e->claim.rate_burst}};
}

/* Each step of a claim is a request of the claim; the template counts devices. What operators
 * register is no device's request. */
enum err step_limit(struct enrolment *e)
{
    if (e->rq->vouch != VOUCH_NONE)
        return ERR_OK;
    struct limits_ask ask = {
        .source = e->rq->source,
        .renewal = e->credential == CREDENTIAL_DEVICE,
        .gate = e->rq->gate,
    };
    if (e->rq->flow != FLOW_CREATE)
        ask.keys[ask.key_count++] = template_key(e);
    if (e->credential == CREDENTIAL_CLAIM)
        ask.keys[ask.key_count++] = claim_key(e);
    return limits_pass(e->service->limits, &ask, e->fault);
}
