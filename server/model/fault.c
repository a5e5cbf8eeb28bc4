#include "model/fault.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct fault_row rows[FAULT_COUNT] = {
    [FAULT_NONE] = {.code = "ok", .http_status = 200, .title = "No fault", .remedy = ""},
#define FAULT_ROW(name, code_, http_, retry_, counts_, seen_, title_, remedy_)                     \
    [FAULT_##name] = {.code = code_,                                                               \
                      .http_status = http_,                                                        \
                      .retry = retry_,                                                             \
                      .counts = counts_,                                                           \
                      .seen = FAULT_SEEN_##seen_,                                                  \
                      .title = title_,                                                             \
                      .remedy = remedy_},
    FAULT_TABLE(FAULT_ROW)
#undef FAULT_ROW
};

const struct fault_row *fault_row(enum fault_code code)
{
    assert(code >= FAULT_NONE && code < FAULT_COUNT);
    return &rows[code];
}

enum fault_code fault_parse(const char *code)
{
    for (int i = 0; i < FAULT_COUNT; i++) {
        if (strcmp(rows[i].code, code) == 0)
            return (enum fault_code)i;
    }
    return FAULT_INTERNAL;
}

enum err fault_set(struct fault *f, enum fault_code code, const char *fmt, ...)
{
    f->code = code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->detail, sizeof(f->detail), fmt, ap);
    va_end(ap);
    return ERR_DENIED;
}

enum fault_code fault_public(enum fault_code code, bool proven)
{
    switch (rows[code].seen) {
    case FAULT_SEEN_FULL:
        return code;
    case FAULT_SEEN_HIDDEN:
        return FAULT_ENROL_REFUSED;
    case FAULT_SEEN_PROVEN:
        return proven ? code : FAULT_ENROL_REFUSED;
    }
    return FAULT_ENROL_REFUSED;
}
