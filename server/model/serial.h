/*
 * A device's serial as given and its canonical form, under the rule of its product.
 * Uniqueness everywhere is on the canonical form. Threads: any.
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"

enum { SERIAL_MAX_CHARS = 64, PRODUCT_NAME_MAX_CHARS = 64 };

enum serial_case { SERIAL_CASE_KEEP, SERIAL_CASE_UPPER, SERIAL_CASE_LOWER };

struct serial_rule {
    enum serial_case letter_case;
    bool strip_separators; /* drops . _ : and - */
};

struct serial {
    char given[SERIAL_MAX_CHARS + 1];
    char canonical[SERIAL_MAX_CHARS + 1];
};

enum err serial_case_parse(const char *name, enum serial_case *ret_case) MUST_CHECK;

/* ERR_INVALID when text is not 1..64 characters of A-Z a-z 0-9 . _ : - or nothing is left of it
 * under the rule. */
enum err serial_parse(const struct serial_rule *rule, const char *text,
                      struct serial *ret_serial) MUST_CHECK;
