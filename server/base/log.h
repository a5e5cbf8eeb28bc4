/*
 * JSON-line logs on standard error: {"time","level","event",fields...}. Only the pipeline
 * runner, the transports and main log; libraries return errors. The event name is a constant,
 * data goes into fields. Threads: any; one line is one write.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Lines below the level are dropped. Default LOG_INFO. */
void log_set_level(enum log_level level);

/* debug, info, warn or error; ERR_INVALID for anything else. */
enum err log_level_parse(const char *name, enum log_level *ret_level) MUST_CHECK;

/* Starts a record; add fields with json_text and its kin, then log_end. The buffer is the
 * caller's and is initialised here; log_end frees it. */
void log_begin(struct buf *b, enum log_level level, const char *event);
void log_end(struct buf *b, enum log_level level);

/* A record with one text field, for the many places that need no more. */
void log_text(enum log_level level, const char *event, const char *key, const char *value);
