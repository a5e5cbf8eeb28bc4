#include "base/trace.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/secret.h"

/* version-trace-parent-flags: 00-<32>-<16>-<2>, lower-case hexadecimal */
enum { AT_ID = 3, AT_PARENT = 36, AT_FLAGS = 53 };

static bool is_hex(const char *s, size_t len)
{
    return strspn(s, "0123456789abcdef") >= len;
}

static bool is_zero(const char *s, size_t len)
{
    return strspn(s, "0") >= len;
}

/* Version 00 ends with the flags; a later one may go on behind another dash. */
static bool version_fits(const char *header, size_t len)
{
    if (!is_hex(header, 2) || strncmp(header, "ff", 2) == 0)
        return false;
    if (len == TRACE_PARENT_CHARS)
        return true;
    return strncmp(header, "00", 2) != 0 && header[TRACE_PARENT_CHARS] == '-';
}

static bool shape_fits(const char *header)
{
    size_t len = strlen(header);
    return len >= TRACE_PARENT_CHARS && version_fits(header, len) && header[AT_ID - 1] == '-' &&
           header[AT_PARENT - 1] == '-' && header[AT_FLAGS - 1] == '-' &&
           is_hex(header + AT_ID, TRACE_ID_CHARS) && is_hex(header + AT_PARENT, TRACE_SPAN_CHARS) &&
           is_hex(header + AT_FLAGS, 2);
}

static unsigned hex_value(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

enum err trace_parse(const char *header, struct trace *ret_trace)
{
    struct trace t = {0};
    if (!shape_fits(header) || is_zero(header + AT_ID, TRACE_ID_CHARS) ||
        is_zero(header + AT_PARENT, TRACE_SPAN_CHARS))
        return ERR_INVALID;
    memcpy(t.id, header + AT_ID, TRACE_ID_CHARS);
    memcpy(t.parent, header + AT_PARENT, TRACE_SPAN_CHARS);
    t.sampled = (hex_value(header[AT_FLAGS + 1]) & 1) != 0;
    *ret_trace = t;
    return ERR_OK;
}

enum err trace_continue(const char *header, struct trace *ret_trace)
{
    struct trace t;
    uint8_t raw[TRACE_SPAN_CHARS / 2];
    enum err e = trace_parse(header, &t);
    if (!e)
        e = secret_random(raw, sizeof(raw));
    if (e)
        return e;
    raw[0] |= 1; /* all zeros would be no id */
    for (size_t i = 0; i < sizeof(raw); i++)
        snprintf(t.span + 2 * i, 3, "%02x", raw[i]);
    *ret_trace = t;
    return ERR_OK;
}

void trace_format(const struct trace *t, char ret_header[TRACE_PARENT_CHARS + 1])
{
    snprintf(ret_header, TRACE_PARENT_CHARS + 1, "00-%s-%s-%02x", t->id, t->span, t->sampled);
}
