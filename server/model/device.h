/*
 * A device and the states a person can see. The legal moves are data, here and in the schema
 * (table device_transition); a test holds the two together. Threads: any, all is constant.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum device_state {
    DEVICE_UNPROVISIONED,    /* on the allowlist, never seen, or put back by a reset */
    DEVICE_BOOTSTRAP,        /* authenticated once */
    DEVICE_ENROLL,           /* CSR accepted */
    DEVICE_CREDENTIAL_STORE, /* certificate released for delivery */
    DEVICE_REGISTER,         /* registry, groups, policies written */
    DEVICE_VERIFY,           /* waiting for the first use of the certificate */
    DEVICE_PROVISIONED,
    DEVICE_QUARANTINE,
    DEVICE_STATE_COUNT
};

/* The name as shown and stored, e.g. "CREDENTIAL_STORE". */
const char *device_state_name(enum device_state s);
enum err device_state_parse(const char *name, enum device_state *ret_state) MUST_CHECK;

struct device_transition {
    enum device_state from;
    enum device_state to;
};

/* The steps a device walks. One commit may pass several steps at once, always along them. */
extern const struct device_transition device_transitions[];
extern const size_t device_transition_count;

/* Whether one step leads from `from` to `to`. */
bool device_step_legal(enum device_state from, enum device_state to);

/* Whether a commit may move a device from `from` to `to`: a chain of forward steps, or one of
 * the other legal steps. */
bool device_move_legal(enum device_state from, enum device_state to);
