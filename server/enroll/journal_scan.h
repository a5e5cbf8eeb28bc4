/*
 * Reading the files of journals: names, and lines in their order. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "enroll/journal_file.h"
#include "pki/ledger.h"

enum { JOURNAL_NAME_BYTES = 64, JOURNAL_MAX_FILES = 1000000 };

/* A file of a journal by its name. */
struct journal_name {
    char replica[JOURNAL_REPLICA_BYTES];
    int64_t number; /* from 1 */
};

/* Whether the name is that of such a file. */
bool journal_name_parse(const char *name, struct journal_name *ret_name);
void journal_name_write(const char *replica, int64_t number, char ret_name[JOURNAL_NAME_BYTES]);

/* The files of a folder by replica and number, in the arena. ERR_SYSTEM: it cannot be read. */
enum err journal_names(const char *directory, struct arena *arena, struct journal_name **ret_names,
                       size_t *ret_count) MUST_CHECK;

/* A line as it stands; borrowed. */
struct journal_line {
    int64_t at; /* line of the file, from 1 */
    struct bytes text;
    struct ledger_line ledger; /* n 0: it does not begin as a line does */
};
/* What it returns ends the reading. */
typedef enum err (*journal_line_fn)(const struct journal_line *line, void *ctx);

struct journal_scan {
    int64_t lines;      /* that are whole */
    int64_t good_bytes; /* up to the end of the last */
    bool torn;          /* behind it stands the beginning of another */
};

/* Reads a file to its end, or to line ret_scan->lines + 1, which fn did not take. ERR_SYSTEM: it
 * cannot be read. ret_scan is filled whatever comes. */
enum err journal_scan(const char *path, journal_line_fn fn, void *ctx,
                      struct journal_scan *ret_scan) MUST_CHECK;
