/*
 * Why a request was refused: a stable code from the registry and two texts, one for the
 * device and one for the operator. Threads: owner only.
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "model/fault_table.h"

enum fault_code {
    FAULT_NONE,
#define FAULT_ENUM(name, ...) FAULT_##name,
    FAULT_TABLE(FAULT_ENUM)
#undef FAULT_ENUM
        FAULT_COUNT
};

enum fault_seen { FAULT_SEEN_FULL, FAULT_SEEN_HIDDEN, FAULT_SEEN_PROVEN };

enum { FAULT_DETAIL_BYTES = 384 };

/* One row of the registry. */
struct fault_row {
    const char *code;
    int http_status;
    bool retry;
    bool counts;
    enum fault_seen seen;
    const char *title;
    const char *remedy;
};

struct fault {
    enum fault_code code;
    int retry_after_s; /* 0: do not say */
    char
        detail[FAULT_DETAIL_BYTES]; /* printable UTF-8 is not guaranteed: always an escaped field */
};

const struct fault_row *fault_row(enum fault_code code);

/* The registry row's code of a text such as "token.expired"; FAULT_INTERNAL when unknown. */
enum fault_code fault_parse(const char *code);

/* Names the refusal; always returns ERR_DENIED, so that a step may `return fault_set(...)`. */
enum err fault_set(struct fault *f, enum fault_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The code the device is told: FAULT_ENROL_REFUSED where the registry hides the real one.
 * proven: the credential proves that very device. */
enum fault_code fault_public(enum fault_code code, bool proven);
