/* A rebuild under way, for the files that read for it. Threads: owner only. */
#pragma once

#include "base/buf.h"
#include "enroll/recovery.h"
#include "enroll/recovery_entry.h"

struct recovery {
    const struct recovery_order *order;
    struct recovery_report *report;
    struct db_conn *conn;
    struct recovery_cas cas;
    struct buf batch; /* entries that are not staged yet: an open array */
    size_t batched;
    char *message;
};

/* Notes one; what is beyond RECOVERY_MAX_GAPS is counted by the last. */
void recovery_gap_note(struct recovery *r, const char *kind, const char *file, int64_t line,
                       const char *fmt, ...) PRINTF_LIKE(5, 6);

/* Stages an entry, with others; recovery_flush stages the rest. */
enum err recovery_put(struct recovery *r, const char *json) MUST_CHECK;
enum err recovery_flush(struct recovery *r) MUST_CHECK;

/* Says why nothing is done, and returns e. */
enum err recovery_failed(struct recovery *r, enum err e, const char *what, const char *name);

/* Every file of the order's folders, which may share a replica's: chain, seals, entries. */
enum err recovery_journals_read(struct recovery *r) MUST_CHECK;
