/*
 * W3C Trace Context, level 1: the traceparent header. A request's trace goes on under a new span
 * id of ours; what does not parse is ignored, as the recommendation wants. Threads: any.
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"

enum { TRACE_ID_CHARS = 32, TRACE_SPAN_CHARS = 16, TRACE_PARENT_CHARS = 55 };

struct trace {
    char id[TRACE_ID_CHARS + 1];       /* "": no trace */
    char parent[TRACE_SPAN_CHARS + 1]; /* the caller's span */
    char span[TRACE_SPAN_CHARS + 1];   /* ours */
    bool sampled;
};

/* Takes the header's value; span stays empty. ERR_INVALID for anything but version 00's form, or a
 * later version that begins with it (section 4.3). */
enum err trace_parse(const char *header, struct trace *ret_trace) MUST_CHECK;

/* Parses the header and makes the new span. */
enum err trace_continue(const char *header, struct trace *ret_trace) MUST_CHECK;

/* The header that hands our span on. */
void trace_format(const struct trace *t, char ret_header[TRACE_PARENT_CHARS + 1]);
