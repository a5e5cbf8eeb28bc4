/*
 * The report of an import, a line of CSV for each line of the file, and where it stands: whoever
 * goes on with an import reads it first. Threads: main only.
 *
 *   line,result,serial,reason
 *   1,imported,SN-1,
 *   2,rejected,S?,reason
 *   #done 2 HASH
 *
 * #done stands where everything above it is in the registry: so many lines of the file, with the
 * hash of the hash before it (the first: none) and of these lines' bytes since.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "base/secret.h"

struct import_report;

/* Where an import was once done. */
struct import_point {
    long lines;
    uint8_t hash[SHA256_BYTES];
};

/* A new file, or with resume one that is there, cut after its last point. An exit code, after it
 * has said what is wrong. */
int import_report_open(const char *path, bool resume, struct import_report **ret_report);
void import_report_close(struct import_report *r);

/* The points of the file that was resumed, in their order. */
const struct import_point *import_report_points(const struct import_report *r, size_t *ret_count);

/* How many lines had this result in the file that was resumed. */
long import_report_had(const struct import_report *r, const char *result);

/* The next hash: of the last one and a piece. */
void import_report_hash(struct import_report *r, struct bytes piece);

/* Whether the hash so far is the point's. */
bool import_report_is_at(const struct import_report *r, const struct import_point *point);

/* Writes an answer's lines, which are numbered as the file's, and the point behind them, durably.
 * An exit code. */
int import_report_add(struct import_report *r, const json_t *lines, long lines_done);
