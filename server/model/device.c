#include "model/device.h"

#include <assert.h>
#include <string.h>

#include "base/cleanup.h"

static const char *const names[DEVICE_STATE_COUNT] = {
    [DEVICE_UNPROVISIONED] = "UNPROVISIONED",
    [DEVICE_BOOTSTRAP] = "BOOTSTRAP",
    [DEVICE_ENROLL] = "ENROLL",
    [DEVICE_CREDENTIAL_STORE] = "CREDENTIAL_STORE",
    [DEVICE_REGISTER] = "REGISTER",
    [DEVICE_VERIFY] = "VERIFY",
    [DEVICE_PROVISIONED] = "PROVISIONED",
    [DEVICE_QUARANTINE] = "QUARANTINE",
};

const struct device_transition device_transitions[] = {
    {DEVICE_UNPROVISIONED, DEVICE_BOOTSTRAP},
    {DEVICE_BOOTSTRAP, DEVICE_ENROLL},
    {DEVICE_ENROLL, DEVICE_CREDENTIAL_STORE},
    {DEVICE_CREDENTIAL_STORE, DEVICE_REGISTER},
    {DEVICE_REGISTER, DEVICE_VERIFY},
    {DEVICE_VERIFY, DEVICE_PROVISIONED},
    /* enrolled again with a new key: the new certificate waits for its first use */
    {DEVICE_PROVISIONED, DEVICE_VERIFY},
    /* put back by an operator, live certificates revoked */
    {DEVICE_BOOTSTRAP, DEVICE_UNPROVISIONED},
    {DEVICE_ENROLL, DEVICE_UNPROVISIONED},
    {DEVICE_VERIFY, DEVICE_UNPROVISIONED},
    {DEVICE_PROVISIONED, DEVICE_UNPROVISIONED},
    {DEVICE_UNPROVISIONED, DEVICE_QUARANTINE},
    {DEVICE_BOOTSTRAP, DEVICE_QUARANTINE},
    {DEVICE_ENROLL, DEVICE_QUARANTINE},
    {DEVICE_CREDENTIAL_STORE, DEVICE_QUARANTINE},
    {DEVICE_REGISTER, DEVICE_QUARANTINE},
    {DEVICE_VERIFY, DEVICE_QUARANTINE},
    {DEVICE_PROVISIONED, DEVICE_QUARANTINE},
    /* released: back to where its certificates say it stands */
    {DEVICE_QUARANTINE, DEVICE_UNPROVISIONED},
    {DEVICE_QUARANTINE, DEVICE_BOOTSTRAP},
    {DEVICE_QUARANTINE, DEVICE_ENROLL},
    {DEVICE_QUARANTINE, DEVICE_VERIFY},
    {DEVICE_QUARANTINE, DEVICE_PROVISIONED},
};

const size_t device_transition_count = ARRAY_LEN(device_transitions);

const char *device_state_name(enum device_state s)
{
    assert(s >= 0 && s < DEVICE_STATE_COUNT);
    return names[s];
}

enum err device_state_parse(const char *name, enum device_state *ret_state)
{
    for (int i = 0; i < DEVICE_STATE_COUNT; i++) {
        if (strcmp(names[i], name) == 0) {
            *ret_state = (enum device_state)i;
            return ERR_OK;
        }
    }
    return ERR_INVALID;
}

bool device_step_legal(enum device_state from, enum device_state to)
{
    for (size_t i = 0; i < device_transition_count; i++) {
        if (device_transitions[i].from == from && device_transitions[i].to == to)
            return true;
    }
    return false;
}

bool device_move_legal(enum device_state from, enum device_state to)
{
    if (device_step_legal(from, to))
        return true;
    /* the first rows of the table are the forward chain, one step apart */
    return from < to && to <= DEVICE_PROVISIONED;
}
