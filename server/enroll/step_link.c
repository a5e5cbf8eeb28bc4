/* POP linking (RFC 7030 3.5): that who holds the key and who speaks on this connection are one. */
#include <string.h>

#include "base/base64.h"
#include "enroll/steps.h"

enum { MAX_BINDING_TEXT_BYTES = 256 };

/* An RA forwards requests that were made for connections of its own (RFC 6402 section 2.10). */
static bool is_registration_authority(const struct enrolment *e)
{
    return e->credential == CREDENTIAL_DEVICE && e->peer.leaf.is_registration_authority;
}

enum err step_link(struct enrolment *e)
{
    const char *challenge = e->csr.challenge;
    struct bytes binding = e->rq->channel_binding;
    if (e->rq->messaged || is_registration_authority(e) ||
        (!challenge && !e->settings->pop_required))
        return ERR_OK;
    if (!challenge)
        return fault_set(e->fault, FAULT_POP_MISSING, "template %s", e->template->label);
    if (binding.len == 0)
        return fault_set(e->fault, FAULT_POP_UNAVAILABLE,
                         "TLS 1.2 without the extended master secret, or a proxy ended TLS");
    _cleanup_(buf_donep) struct buf expected = {0};
    buf_init(&expected, MAX_BINDING_TEXT_BYTES);
    base64_encode(&expected, binding);
    if (strlen(challenge) != expected.len || !secret_equal(challenge, expected.data, expected.len))
        return fault_set(
            e->fault, FAULT_POP_MISMATCH,
            "a request made for another connection, or a challengePassword that is something else");
    return ERR_OK;
}
