/* The insides of a journal's files, for opening and for appending. Threads: as said. */
#pragma once

#include <pthread.h>

#include "base/buf.h"
#include "enroll/journal_file.h"
#include "pki/ledger.h"

struct journal_waiter; /* a thread's lines on their way */

struct journal_file {
    struct journal_file_config config;
    char replica[JOURNAL_REPLICA_BYTES];
    int lock_fd; /* of the file that says whose folder it is */

    /* the leader's alone */
    int fd; /* -1: the next file must be begun */
    int64_t number;
    int64_t bytes;       /* of the file, up to which all is on disk */
    bool tail;           /* perhaps more stands behind, which a failed write left */
    int64_t begun_bytes; /* of them what every file begins with */
    bool used;           /* more than that stands in it */
    int64_t began_us;
    struct ledger ledger;
    struct buf text; /* being written */

    pthread_mutex_t lock; /* guards what follows */
    struct journal_waiter *first;
    struct journal_waiter **last;
    bool leading;
    char **head;
    size_t head_count;
    struct journal_file_state state;
};

/* Begins the next file, with what every file begins with. ERR_SYSTEM with errno. */
enum err journal_file_begin(struct journal_file *f) MUST_CHECK;

/* Adds a line to f->text. ERR_INVALID leaves text and chain as they were. */
enum err journal_file_line(struct journal_file *f, const char *entry) MUST_CHECK;
