/*
 * The journal of this replica: every certificate before it leaves the process, and what the
 * registry ended before anybody is told so. From its lines a lost registry is made again
 * (docs/recovery.md). Made by main, outlives every request; NULL where none is kept, which every
 * call takes. Threads: any.
 */
#pragma once

#include "base/buf.h"
#include "enroll/journal_file.h"
#include "model/fault.h"

struct db;
struct journal;

struct journal_config {
    const char *directory; /* borrowed for the life of the journal */
    const char *key_file;
    int64_t max_bytes;
    int64_t max_age_s;
};

/* message says why not: the key, or as journal_file_open. */
enum err journal_new(const struct journal_config *config, struct db *db,
                     struct journal **ret_journal, char message[JOURNAL_MESSAGE_BYTES]) MUST_CHECK;
void journal_free(struct journal *j);

/* Writes lines, all or none, and what of the configuration changed up to that epoch before them. On
 * disk when it returns ok; else the fault is set. */
enum err journal_write(struct journal *j, int64_t epoch, const char *const *entries, size_t count,
                       struct fault *fault) MUST_CHECK;

/* Writes what the registry has due: what others wrote is waited for, so that after an ok everything
 * ended before the call is in some replica's journal. */
enum err journal_drain(struct journal *j, struct fault *fault) MUST_CHECK;

/* To be called once a second. */
void journal_tick(struct journal *j);

/* FAULT_JOURNAL_UNAVAILABLE with the reason while it cannot be written. */
enum err journal_check(struct journal *j, struct fault *fault) MUST_CHECK;

/* In the text format of Prometheus; without values where none is kept. */
void journal_metrics(struct journal *j, struct buf *b);
