/*
 * Routes as data: one row a path and method. The handler is called with the body complete and
 * method, type and length checked. Threads: any, the tables are constant.
 */
#pragma once

#include <stddef.h>

#include "enroll/metrics.h"
#include "proto/exchange.h"

struct service;

struct route {
    enum http_method method;
    const char *pattern; /* "/a/{}/b": {} matches one segment that is not empty, {*} at the end the
                            rest, slashes and all */
    const char *type;    /* required Content-Type without parameters; NULL: any or none */
    size_t max_body;     /* bytes; 0: no body expected */
    unsigned access;     /* the adapter's own meaning (admin: least role) */
    /* Fills reply or x->fault. ERR_DENIED: the fault becomes the reply. */
    enum err (*handle)(struct service *service, struct exchange *x) MUST_CHECK;
    const void *more; /* the adapter's own: what the handler works after */
};

struct route_table {
    const struct route *rows;
    size_t count;
    enum metrics_protocol protocol; /* of its rows, for metrics and log */
    /* Refusals in the protocol's own shape, once the row is known. NULL: problem+json. */
    void (*problem)(struct exchange *x, enum fault_code seen);
    /* Called with the headers, before a body is taken; may refuse. NULL: none. */
    enum err (*before)(struct service *service, const struct route *row, struct exchange *x);
};

/*
 * Finds the row of x->path and x->method and fills x->args. Faults: request.not_found, or
 * request.method_not_allowed with the Allow header (RFC 9110 15.5.6) added to the reply.
 */
enum err route_find(const struct route_table *table, struct exchange *x,
                    const struct route **ret_row) MUST_CHECK;

/* Checks Content-Type and length against the row: request.type_unsupported,
 * request.too_large. declared_length is -1 when the client did not say. */
enum err route_check(const struct route *row, struct exchange *x,
                     int64_t declared_length) MUST_CHECK;

/* Asks the table's `before` whether the request may go on. */
enum err route_admit(const struct route_table *table, const struct route *row,
                     struct service *service, struct exchange *x) MUST_CHECK;

/* Runs the handler; afterwards x has a reply in any case. */
void route_run(const struct route *row, struct service *service, struct exchange *x);
