/* Whose a certificate of ours is, by itself: one of its names is urn:muster:PRODUCT:SERIAL.
 * Threads: any. */
#pragma once

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"

struct identity {
    const char *product;
    const char *serial;
};

/* From GeneralNames (RFC 5280 4.2.1.6), into the arena. The last such name counts: the pipeline
 * puts it behind what a template says. ERR_NOT_FOUND: there is none. Claims have a name of that
 * form too, of a product that is called claim. */
enum err identity_read(struct bytes san_der, struct arena *arena,
                       struct identity *ret_identity) MUST_CHECK;
