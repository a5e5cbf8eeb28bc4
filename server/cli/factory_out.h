/*
 * What muster factory batch leaves behind: a folder with manifest.jsonl, a line with the
 * certificate for each device that is done, chain.pem, and where keys were made a file for each
 * device, which is safe before its line is written. Threads: one at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct factory_out;

/* A new folder, or with resume one that is there. An exit code, after it has said what is wrong. */
int factory_out_open(const char *folder, bool resume, struct factory_out **ret_out);
void factory_out_close(struct factory_out *o);

/* Whether the manifest had the serial when the folder was opened. */
bool factory_out_has(const struct factory_out *o, const char *serial);
int64_t factory_out_had(const struct factory_out *o);

/* The file NAME.suffix, for its owner's eyes only where it is secret; one that is there was of a
 * try that broke. Nothing is safe before factory_out_sync. An exit code. */
int factory_out_file(struct factory_out *o, const char *name, const char *suffix, bool secret,
                     struct bytes content);

/* The CAs above, once and for good; PEM. An exit code. */
int factory_out_chain(struct factory_out *o, const char *pem);

/* Lines of the manifest, for devices whose files were written; then all of it is on the disk. An
 * exit code. */
int factory_out_sync(struct factory_out *o, struct bytes lines);
