/*
 * Rows of an allowlist on their way into the registry, whatever they were read from. For
 * proto/admin only. Threads: the request's own.
 */
#pragma once

#include <jansson.h>

#include "base/buf.h"
#include "proto/admin/allowlist_lines.h"
#include "proto/exchange.h"

struct service;

enum { ALLOWLIST_MAX_ROWS_BYTES = 64 << 20 };

/* One row in COPY's text format; reason: the line is refused. */
void allowlist_row_add(struct buf *b, size_t number, const struct allowlist_line *l,
                       const char *reason);

/* How serials of the product are written. */
enum err allowlist_rule_take(struct service *service, struct exchange *x, const char *product,
                             struct serial_rule *ret_rule) MUST_CHECK;

/* Into the registry, and the report as the answer. */
enum err allowlist_rows_import(struct service *service, struct exchange *x, const json_t *args,
                               struct bytes rows) MUST_CHECK;
