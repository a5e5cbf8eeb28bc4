/* Whether it is this request's turn: the last step before work is done and anything is consumed. */
#include "enroll/limits.h"
#include "enroll/steps.h"

enum err step_limit(struct enrolment *e)
{
    const struct limits_ask ask = {
        .source = e->rq->source,
        .renewal = e->credential == CREDENTIAL_DEVICE,
        .keys = {{LIMIT_TEMPLATE,
                  e->template->id,
                  {e->settings->rate_per_second, e->settings->rate_burst}}},
        .key_count = 1,
        .gate = e->service->device_gate,
    };
    return limits_pass(e->service->limits, &ask, e->fault);
}
