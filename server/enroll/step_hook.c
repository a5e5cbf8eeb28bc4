/* Whom the template asks before it provisions by a claim, and the parameters that come of it. */
#include <string.h>

#include "enroll/steps.h"

const char *enrolment_given(const struct enrolment *e, const char *name)
{
    for (size_t i = 0; i < e->given_count; i++) {
        if (strcmp(e->given[i].name, name) == 0)
            return e->given[i].value;
    }
    return NULL;
}

enum err step_hook(struct enrolment *e)
{
    memcpy(e->given, e->rq->parameters, sizeof(e->given));
    e->given_count = e->rq->parameter_count;
    return ERR_OK;
}
