/*
 * Journals of stations that work without a connection: lines of pki/ledger, each telling which
 * certificate was put into which device, sealed by the station's key. What a seal covers is
 * recorded, and certificates that the registry lacks are registered where their CA is. Threads:
 * any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "enroll/factory.h"

enum { FACTORY_MAX_JOURNAL_BYTES = 4 << 20, FACTORY_MAX_JOURNAL_LINES = 5000 };

/* A line whose certificate is not registered. */
struct factory_bad_line {
    int64_t n;
    const char *serial; /* NULL: the line does not say */
    const char *reason; /* code and detail */
};

/* What became of an upload; lists in the arena. */
struct factory_journal {
    size_t recorded;   /* lines that are new, seals not counted */
    size_t known;      /* lines that came before, likewise: tried again where not registered */
    size_t registered; /* certificates that the registry did not have */
    size_t unsealed;   /* lines behind the last seal: not recorded, to be sent again */
    int64_t missing;   /* lines between the last upload and this one */
    int64_t head;      /* number of the last line that is here now */
    struct factory_bad_line *bad;
    size_t bad_count;
};

/*
 * Takes lines that follow the last one that is here; lines that are here already may stand before
 * them. accept_gap: lines may be missing in between, which is recorded for good. The job's scope is
 * of a station. ERR_DENIED: nothing was recorded; faults: journal.malformed, journal.chain_broken,
 * journal.forked, journal.gap, journal.seal_invalid, journal.unsealed, journal.busy, and those of
 * the server.
 */
enum err factory_journal_take(struct service *service, const struct factory_job *job,
                              struct bytes body, bool accept_gap, struct arena *arena,
                              struct factory_journal *ret_journal, struct fault *fault) MUST_CHECK;
