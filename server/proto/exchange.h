/*
 * One request and its answer as plain data: what a protocol adapter sees of HTTP. Everything
 * lives in the request's arena. No MHD, no TLS library: a test or a fuzzer fills one by hand.
 * Threads: the one that serves the request.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/trace.h"
#include "model/fault.h"

enum {
    EXCHANGE_MAX_ARGS = 4,
    EXCHANGE_MAX_PAIRS = 32,
    EXCHANGE_MAX_CHAIN = 8,
    EXCHANGE_MAX_REPLY_HEADERS = 6
};

enum http_method { HTTP_GET, HTTP_POST, HTTP_PUT, HTTP_DELETE, HTTP_OTHER };

struct route;

struct pair {
    const char *name;
    const char *value;
};

struct exchange {
    struct arena *arena;
    char request_id[33];
    int64_t arrived_us; /* monotonic */
    int64_t since_us;   /* likewise: since when the client may have been about to send it */
    struct trace trace; /* the caller's, under our span; id "": none */
    const char *source; /* remote address as text */

    enum http_method method;
    const char *path;                      /* without the query */
    const char *args[EXCHANGE_MAX_ARGS];   /* what the route's {} matched, percent-decoded */
    struct pair query[EXCHANGE_MAX_PAIRS]; /* decoded */
    size_t query_count;
    struct pair headers[EXCHANGE_MAX_PAIRS]; /* request headers */
    size_t header_count;
    struct bytes body;
    struct bytes chain[EXCHANGE_MAX_CHAIN]; /* the peer's certificates as DER, leaf first */
    size_t chain_count;
    const char *psk_identity;     /* that the TLS connection was made with; NULL: none */
    struct bytes channel_binding; /* of the TLS connection; len 0: none */

    int status;
    const char *reply_type; /* NULL: no body */
    struct bytes reply;
    struct pair reply_headers[EXCHANGE_MAX_REPLY_HEADERS];
    size_t reply_header_count;
    struct fault fault;        /* set by the handler when it refuses */
    enum fault_code told;      /* what the client was told; for the log */
    const struct route *route; /* the row that was found */
    void *adapter;             /* the adapter's own, in the arena */
    void (*problem)(struct exchange *x,
                    enum fault_code seen); /* how its table refuses; NULL: as below */
    const char *log_serial;                /* for the log record; NULL: none */
    const char *log_credential;            /* likewise */
    const char *log_template;              /* likewise */
};

/* The value of a request header, case-insensitive; NULL when absent. */
const char *exchange_header(const struct exchange *x, const char *name);

/* Adds a reply header; the strings are borrowed. Silently full past the maximum (a bug). */
void exchange_add_header(struct exchange *x, const char *name, const char *value);

/* How long a refused client should wait, seconds; 0: that is not said. Where the fault of a full
 * server does not say how long, clients are spread over a few seconds. row: of the code it is told.
 */
int exchange_retry_s(const struct fault *f, const struct fault_row *row);

/* Adds Retry-After; 0 adds nothing. */
void exchange_add_retry(struct exchange *x, int seconds);

/* Sets the reply. body is borrowed and lives in the arena. */
void exchange_reply(struct exchange *x, int status, const char *type, struct bytes body);

/* The same with what a buffer holds, copied into the arena. ERR_NO_MEMORY also when it overflowed.
 */
enum err exchange_reply_buf(struct exchange *x, int status, const char *type,
                            const struct buf *b) MUST_CHECK;

/* Whether the request's Content-Type is `type`, parameters aside (RFC 9110 8.3.1). */
bool exchange_type_is(const struct exchange *x, const char *type);

/*
 * Turns x->fault into the reply that the route's table has for it, or else into an RFC 9457
 * problem+json reply: type, title, status, code, detail, request_id; Retry-After where the fault
 * says so. `seen` is the code the client is told; the detail is only given when it is the fault's
 * own code.
 */
void exchange_problem(struct exchange *x, enum fault_code seen);
