/*
 * A line of an allowlist import. The first byte chooses the form, the product's rule and whether
 * the line is the first; the rest is the line. What is accepted must be what the schema takes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "proto/admin/allowlist_lines.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { BIT_JSON = 1, BIT_UPPER = 2, BIT_LOWER = 4, BIT_STRIP = 8, BIT_LATER = 16 };

static enum serial_case case_of(unsigned bits)
{
    if (bits & BIT_UPPER)
        return SERIAL_CASE_UPPER;
    return bits & BIT_LOWER ? SERIAL_CASE_LOWER : SERIAL_CASE_KEEP;
}

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* The serial again, alone, gives the same; it never holds what would break a COPY row. */
static void accepted_check(const struct serial_rule *rule, const struct allowlist_line *l)
{
    struct serial again;
    must(serial_parse(rule, l->serial.given, &again) == ERR_OK);
    must(strcmp(again.canonical, l->serial.canonical) == 0);
    must(strpbrk(l->serial.given, "\t\n\r\\, \"") == NULL);
    must(strlen(l->batch) <= ALLOWLIST_MAX_BATCH_BYTES && text_is_printable_utf8(l->batch));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0)
        return 0;
    struct serial_rule rule = {case_of(data[0]), (data[0] & BIT_STRIP) != 0};
    struct allowlist_line line;
    char reason[ALLOWLIST_REASON_BYTES] = "";
    enum err e = allowlist_line_parse(data[0] & BIT_JSON ? ALLOWLIST_JSON : ALLOWLIST_CSV, &rule,
                                      (const char *)data + 1, len - 1, data[0] & BIT_LATER ? 2 : 1,
                                      &line, reason);
    must(text_is_printable_utf8(line.shown) && strlen(line.shown) <= SERIAL_MAX_CHARS);
    if (e)
        must(e == ERR_INVALID && reason[0] != '\0' && strlen(reason) < sizeof(reason));
    else if (!line.skip)
        accepted_check(&rule, &line);
    return 0;
}
