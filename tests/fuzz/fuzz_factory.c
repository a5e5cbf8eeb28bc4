/*
 * What stations send: a line of a request (first byte 'u') or of a journal. What is accepted has a
 * serial, and what belongs to it.
 */
#include <stdlib.h>

#include "enroll/factory_entry.h"
#include "proto/units.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { ARENA_BYTES = 4 << 20 };

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void unit(struct bytes text, struct arena *arena)
{
    struct factory_unit u;
    if (!units_line_parse(text, arena, &u))
        must(u.serial && u.csr.data);
}

static void entry(struct bytes text, struct arena *arena)
{
    static const struct serial_rule rule = {0};
    struct factory_entry e;
    struct fault fault = {0};
    enum err err = factory_entry_parse(text, &rule, arena, &e, &fault);
    must(err ? fault.code == FAULT_JOURNAL_ENTRY && e.der.len == 0
             : e.serial_known && e.serial.given[0] != '\0' && e.der.len > 0 && e.cert.subject_text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena arena;
    arena_init(&arena, ARENA_BYTES);
    if (len > 0 && data[0] == 'u')
        unit(bytes_of(data + 1, len - 1), &arena);
    else
        entry(bytes_of(data, len), &arena);
    arena_done(&arena);
    return 0;
}
