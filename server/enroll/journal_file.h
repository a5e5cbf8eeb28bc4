/*
 * The files of a replica's journal: lines chained by their hashes (pki/ledger.h) in
 * REPLICA-NNNNNN.jsonl of a folder that is this process's alone. The chain goes on over the files;
 * a file that is full or old ends with a seal. Made by main, outlives every request. Threads: any
 * but for open and close.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "pki/key.h"

enum { JOURNAL_MESSAGE_BYTES = 512, JOURNAL_REPLICA_BYTES = 33 };

struct journal_file_config {
    const char *directory; /* borrowed for the life of the journal */
    EVP_PKEY *key;         /* signs the seals; taken over, also on failure */
    int64_t max_bytes;     /* of a file; what is written at once may pass it */
    int64_t max_age_s;     /* of a file in which anything stands */
};

struct journal_file;

/* Goes on where the last process ended: cuts off a last line without end, which nobody was
 * promised, and begins a new file. message says why not: another process has the folder, or the
 * chain does not hold. */
enum err journal_file_open(const struct journal_file_config *config, struct journal_file **ret_file,
                           char message[JOURNAL_MESSAGE_BYTES]) MUST_CHECK;

/* Seals. NULL is taken. */
void journal_file_close(struct journal_file *f);

/* JSON objects, which get number, hash and time. On disk when it returns ok, together with what
 * other threads appended meanwhile; a line that is too long is ERR_INVALID, ERR_SYSTEM leaves
 * nothing in the file. */
enum err journal_file_append(struct journal_file *f, const char *const *entries,
                             size_t count) MUST_CHECK;

/* What stands at the beginning of every later file; copied. */
enum err journal_file_head(struct journal_file *f, const char *const *entries,
                           size_t count) MUST_CHECK;

/* To be called now and then: ends a file that is old, and tries again what failed. */
void journal_file_tick(struct journal_file *f);

/* Borrowed. */
const char *journal_file_replica(const struct journal_file *f);

struct journal_file_state {
    uint64_t lines; /* appended by this process, and how often they were flushed */
    uint64_t flushes;
    uint64_t failures;
    bool failing; /* the last attempt to write */
    char why[JOURNAL_MESSAGE_BYTES];
};
void journal_file_look(struct journal_file *f, struct journal_file_state *ret_state);
