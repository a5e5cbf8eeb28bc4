/*
 * A batch of changes for the table, as model/broker_wire.h has it. Decoded in place: what is
 * returned points into the batch. Threads: any.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "model/broker_wire.h"

struct batch {
    uint64_t counter;
    int64_t position;
    uint8_t flags;
    size_t count;
    struct bytes entries;
};

struct batch_entry {
    enum wire_state state;
    const uint8_t *fingerprint;
    const char *thing; /* not terminated */
    size_t thing_len;
};

/* Judges all of it: ERR_INVALID unless every entry is as it should be. */
enum err batch_decode(struct bytes in, struct batch *ret_batch) MUST_CHECK;

/* Takes the next entry off the rest of a batch's entries, while there are some. */
enum err batch_entry_decode(struct bytes *rest, struct batch_entry *ret_entry) MUST_CHECK;
