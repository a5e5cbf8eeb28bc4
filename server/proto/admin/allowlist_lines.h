/*
 * One line of an allowlist import: CSV (serial[,pin[,batch]]) or a JSON object. Pure; for any
 * bytes. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"
#include "model/serial.h"

enum {
    ALLOWLIST_MAX_LINE_BYTES = 1024,
    ALLOWLIST_MAX_BATCH_BYTES = 128,
    ALLOWLIST_REASON_BYTES = 128
};

enum allowlist_format { ALLOWLIST_CSV, ALLOWLIST_JSON };

struct allowlist_line {
    struct serial serial;
    char shown[SERIAL_MAX_CHARS + 1]; /* the serial as far as it could be read, for the report */
    bool pinned;
    uint8_t pin[SHA256_BYTES];                 /* SHA-256 of the SubjectPublicKeyInfo */
    char batch[ALLOWLIST_MAX_BATCH_BYTES + 1]; /* "": none */
    bool skip;                                 /* blank, a comment, or the header line */
};

/* text has no line end; number counts from 1 (a header may stand in line 1). ERR_INVALID fills
 * reason, and `shown` as far as possible. */
enum err allowlist_line_parse(enum allowlist_format format, const struct serial_rule *rule,
                              const char *text, size_t len, size_t number,
                              struct allowlist_line *ret_line,
                              char ret_reason[ALLOWLIST_REASON_BYTES]) MUST_CHECK;
