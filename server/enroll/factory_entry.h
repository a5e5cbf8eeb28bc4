/*
 * What a line of a station's journal says: {"n","prev","at","serial","certificate"}, at in seconds
 * since 1970 and optional, certificate DER in base64. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "model/fault.h"
#include "model/serial.h"
#include "pki/cert.h"

struct factory_entry {
    int64_t at_s; /* by the station's clock; 0: not said */
    struct serial serial;
    bool serial_known;
    struct bytes der;      /* in the arena; len 0: no certificate that can be read */
    struct cert_info cert; /* of it */
};

/* ERR_DENIED: journal.entry_invalid; what could be read is there all the same. */
enum err factory_entry_parse(struct bytes text, const struct serial_rule *rule, struct arena *arena,
                             struct factory_entry *ret_entry, struct fault *fault) MUST_CHECK;
