/*
 * A batch of changes for the table, as model/broker_wire.h has it. Decoded in place: what is
 * returned points into the batch. Threads: any.
 */
#pragma once

#include <stdbool.h>
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

enum batch_kind { BATCH_CERTIFICATE, BATCH_POLICY, BATCH_CA };

struct batch_entry {
    enum batch_kind kind;
    const uint8_t *fingerprint; /* BATCH_CERTIFICATE */
    enum wire_state state;      /* likewise */
    struct bytes thing;         /* likewise, not terminated */
    struct bytes grants;        /* likewise; well formed */
    uint32_t policy;            /* BATCH_POLICY: its number */
    struct bytes body;          /* BATCH_POLICY: a valid form; BATCH_CA: DER, not looked at */
};

/* Judges all of it: ERR_INVALID unless every entry is as it should be. */
enum err batch_decode(struct bytes in, struct batch *ret_batch) MUST_CHECK;

/* Takes the next entry off the rest of a batch's entries, while there are some. */
enum err batch_entry_decode(struct bytes *rest, struct batch_entry *ret_entry) MUST_CHECK;

/* The grants of a certificate, piece by piece. */
struct grants {
    struct bytes policies; /* numbers, four bytes each */
    struct bytes pairs;
};

/* False when they are not as they should be. len 0 is good: there are none. */
bool grants_decode(struct bytes in, struct grants *ret_grants);
uint32_t grants_policy(const struct grants *g, size_t i);

/* The next pair of the rest. False at its end. */
bool grants_pair(struct bytes *rest, struct bytes *ret_name, struct bytes *ret_value);
