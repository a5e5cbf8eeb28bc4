/* Writing batches for the broker's table (model/broker_wire.h). Threads: owner only. */
#pragma once

#include "base/buf.h"
#include "model/broker_wire.h"
#include "store/gate.h"

enum {
    GATE_BATCH_MAX_BYTES = WIRE_BATCH_HEADER_BYTES +
                           WIRE_MAX_BATCH_ENTRIES * (WIRE_ENTRY_BYTES + WIRE_MAX_THING_CHARS),
    GATE_MAX_STATUS_BYTES = 160
};

struct gate_batch {
    uint64_t counter;
    int64_t position;
    unsigned flags; /* WIRE_BATCH_... */
};

/* Appends the whole of a batch. */
void gate_batch_encode(const struct gate_batch *head, const struct gate_entry *entries,
                       size_t count, struct buf *b);

/* What the plugin says of its table. */
struct gate_status {
    uint64_t counter;
    int64_t position;
    int64_t entries;
    bool ready;
};
enum err gate_status_parse(struct bytes text, struct gate_status *ret_status) MUST_CHECK;
