/* Writing batches for the broker's table (model/broker_wire.h). Threads: owner only. */
#pragma once

#include "base/buf.h"
#include "model/broker_wire.h"
#include "store/gate.h"

enum { GATE_MAX_STATUS_BYTES = 160 };

struct gate_batch {
    uint64_t counter;
    int64_t position;
    unsigned flags; /* WIRE_BATCH_... */
};

/* Appends the head; records follow, in any order but policies before who refers to them. */
void gate_batch_begin(const struct gate_batch *head, struct buf *b);

/* Appends a record. */
void gate_batch_certificate(const struct gate_entry *entry, struct bytes grants, struct buf *b);
void gate_batch_policy(uint32_t number, struct bytes form, struct buf *b);
void gate_batch_ca(struct bytes der, struct buf *b);

/* What the plugin says of its table. */
struct gate_status {
    uint64_t counter;
    int64_t position;
    int64_t entries;
    bool ready;
};
enum err gate_status_parse(struct bytes text, struct gate_status *ret_status) MUST_CHECK;
