#include "http/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/json_out.h"
#include "base/log.h"
#include "base/text.h"
#include "enroll/service.h"
#include "http/peer.h"

enum {
    DRAIN_BYTES =
        256 * 1024 /* of a refused body that is still read, so that the client sees the answer */
};

/* One request from its headers to its completion; owned by libmicrohttpd's con_cls. */
struct request {
    struct listener *listener;
    struct connection *connection;
    struct arena arena;
    struct exchange x;
    const char *method_text;
    const struct route_table *table;
    const struct route *row; /* NULL: refused before routing */
    struct buf body;
    size_t received; /* of the body */
    size_t drained;
    bool refused; /* x.fault is set; the rest of the body is dropped */
    bool read_on; /* it is, but what the protocol answers depends on the body */
    bool answered;
};

static enum http_method method_parse(const char *m)
{
    if (strcmp(m, "GET") == 0)
        return HTTP_GET;
    if (strcmp(m, "POST") == 0)
        return HTTP_POST;
    if (strcmp(m, "PUT") == 0)
        return HTTP_PUT;
    return strcmp(m, "DELETE") == 0 ? HTTP_DELETE : HTTP_OTHER;
}

static enum MHD_Result header_take(void *cls, enum MHD_ValueKind kind, const char *key,
                                   const char *value)
{
    struct exchange *x = cls;
    (void)kind;
    if (x->header_count == EXCHANGE_MAX_PAIRS) {
        (void)fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "more than %d headers",
                        EXCHANGE_MAX_PAIRS);
        return MHD_NO;
    }
    x->headers[x->header_count++] = (struct pair){key, value ? value : ""};
    return MHD_YES;
}

static enum MHD_Result query_take(void *cls, enum MHD_ValueKind kind, const char *key,
                                  const char *value)
{
    struct exchange *x = cls;
    (void)kind;
    char *name = arena_strdup(x->arena, key);
    char *text = arena_strdup(x->arena, value ? value : "");
    if (x->query_count == EXCHANGE_MAX_PAIRS || !name || !text || text_url_decode(name) ||
        text_url_decode(text)) {
        (void)fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                        "the query does not decode, or has more than %d arguments",
                        EXCHANGE_MAX_PAIRS);
        return MHD_NO;
    }
    x->query[x->query_count++] = (struct pair){name, text};
    return MHD_YES;
}

static struct connection *connection_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static void request_free(struct request *r)
{
    buf_done(&r->body);
    arena_done(&r->arena);
    free(r);
}

/* Two traceparents are as good as none: nobody could tell which is the caller's. */
static void trace_take(struct exchange *x)
{
    const char *found = NULL;
    for (size_t i = 0; i < x->header_count; i++) {
        if (!text_equal_nocase(x->headers[i].name, "traceparent"))
            continue;
        if (found)
            return;
        found = x->headers[i].value;
    }
    if (found && trace_continue(found, &x->trace))
        x->trace.id[0] = '\0';
}

static void trace_answer(const struct exchange *x, struct MHD_Response *response)
{
    char header[TRACE_PARENT_CHARS + 1];
    if (x->trace.id[0] == '\0')
        return;
    trace_format(&x->trace, header);
    MHD_add_response_header(response, "traceparent", header);
}

/* What was sent may have been held up on the way while the client lost power and came again, so a
 * request is as old as the wait for it. A proxy's connections are not the clients'. */
static int64_t request_since(const struct listener *l, struct connection *c, int64_t arrived_us)
{
    int64_t awaited_us = atomic_load(&c->awaited_us);
    return awaited_us > 0 && !l->config.peers.are_proxies ? awaited_us : arrived_us;
}

static struct request *request_new(struct listener *l, struct MHD_Connection *connection,
                                   const char *url, const char *method)
{
    struct connection *c = connection_of(connection);
    struct request *r = c ? calloc(1, sizeof(*r)) : NULL;
    if (!r)
        return NULL;
    connection_ask(&l->connections, c);
    r->listener = l;
    r->connection = c;
    arena_init(&r->arena, l->config.request_arena_bytes);
    struct exchange *x = &r->x;
    x->arena = &r->arena;
    x->arrived_us = clock_mono_us();
    x->since_us = request_since(l, c, x->arrived_us);
    x->method = method_parse(method);
    r->method_text = arena_strdup(&r->arena, method);
    x->path = arena_strdup(&r->arena, url);
    x->source = arena_strdup(&r->arena, c->source);
    if (!x->path || !r->method_text || !x->source || id_new(x->request_id)) {
        request_free(r);
        return NULL;
    }
    MHD_get_connection_values(connection, MHD_HEADER_KIND, header_take, x);
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, query_take, x);
    trace_take(x);
    return r;
}

/* The first table that knows the path decides; else the first that knew it by another method. */
static enum err tables_find(struct request *r)
{
    const struct listener_config *c = &r->listener->config;
    enum err e = ERR_DENIED;
    for (size_t i = 0; i < c->table_count; i++) {
        r->table = c->tables[i];
        r->x.fault = (struct fault){0};
        e = route_find(r->table, &r->x, &r->row);
        if (!e || r->x.fault.code != FAULT_REQUEST_NOT_FOUND)
            return e;
    }
    return e;
}

static int64_t declared_length(struct MHD_Connection *connection)
{
    const char *text =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    int64_t length = -1;
    if (text && text_parse_int(text, 0, INT64_MAX, &length))
        return -1;
    return length;
}

static enum MHD_Result reply_send(struct request *r, struct MHD_Connection *connection)
{
    struct exchange *x = &r->x;
    struct MHD_Response *response = MHD_create_response_from_buffer(
        x->reply.len, (void *)(uintptr_t)x->reply.data, MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    if (x->reply_type)
        MHD_add_response_header(response, "Content-Type", x->reply_type);
    MHD_add_response_header(response, "Muster-Request-Id", x->request_id);
    trace_answer(x, response);
    for (size_t i = 0; i < x->reply_header_count; i++)
        MHD_add_response_header(response, x->reply_headers[i].name, x->reply_headers[i].value);
    if (atomic_load(&r->listener->quiesced))
        MHD_add_response_header(response, "Connection", "close");
    r->answered = true;
    enum MHD_Result rc = MHD_queue_response(connection, (unsigned)x->status, response);
    MHD_destroy_response(response);
    return rc;
}

/* Health probes go past the gate: they must answer when it is full. */
static void handle(struct request *r)
{
    struct exchange *x = &r->x;
    bool gated = r->row->access != 0 || r->row->max_body > 0 || x->chain_count > 0;
    if (gated &&
        gate_enter(r->listener->gate, atomic_load(&r->listener->service->queue_timeout_ms))) {
        (void)fault_set(&x->fault, FAULT_OVERLOADED, "the queue is full or too slow");
        exchange_problem(x, FAULT_OVERLOADED);
        return;
    }
    route_run(r->row, r->listener->service, x);
    if (gated)
        gate_leave(r->listener->gate);
}

static enum MHD_Result request_finish(struct request *r, struct MHD_Connection *connection)
{
    struct exchange *x = &r->x;
    if (!connection_work(r->connection))
        return MHD_NO;
    if (!r->refused) {
        r->refused = peer_take(&r->listener->config.peers, connection, r->row->max_body > 0, x);
        x->body = buf_bytes(&r->body);
    }
    if (r->read_on)
        x->body = buf_bytes(&r->body);
    if (r->refused)
        exchange_problem(x, x->fault.code);
    else
        handle(r);
    return reply_send(r, connection);
}

static void body_take(struct request *r, const char *data, size_t len)
{
    r->received += len;
    if (!r->refused || r->read_on) {
        buf_add(&r->body, data, len);
        if (!r->body.overflow)
            return;
        (void)fault_set(&r->x.fault, FAULT_REQUEST_TOO_LARGE, "at most %zu bytes",
                        r->row->max_body);
        r->refused = true;
        r->read_on = false;
        buf_done(&r->body);
    }
    r->drained += len;
}

/* Whether this peer may ask that of this listener. */
static enum err request_admit(struct request *r, struct MHD_Connection *connection)
{
    struct exchange *x = &r->x;
    const struct listener_peers *peers = &r->listener->config.peers;
    enum err e = x->fault.code != FAULT_NONE ? ERR_DENIED : peer_headers_check(peers, x);
    if (e)
        return e;
    enum err found = tables_find(r);
    if (atomic_load(&r->listener->refusing)) /* in the protocol's own words */
        return fault_set(&x->fault, FAULT_DRAINING, "the connection outlived the drain");
    if (found || r->table != peers->open)
        e = peer_admit(peers, connection, r->connection, x);
    return e ? e : found;
}

/* With the headers in: finds the route and judges what can be judged before the body. A client
 * that waits for 100 Continue, or announces more than will be drained, is told at once. */
static enum MHD_Result request_begin(struct request *r, struct MHD_Connection *connection)
{
    int64_t length = declared_length(connection);
    enum err e = request_admit(r, connection);
    if (!e)
        e = route_check(r->row, &r->x, length);
    if (!e)
        e = route_admit(r->table, r->row, r->listener->service, &r->x);
    r->refused = e != ERR_OK;
    r->read_on = r->refused && r->row && r->x.fault.code == FAULT_DRAINING;
    buf_init(&r->body, r->row ? r->row->max_body : 0);
    const char *expect = exchange_header(&r->x, "Expect");
    if (r->refused && (expect || length > DRAIN_BYTES))
        return request_finish(r, connection);
    return MHD_YES;
}

enum MHD_Result request_access(void *cls, struct MHD_Connection *connection, const char *url,
                               const char *method, const char *version, const char *upload_data,
                               size_t *upload_data_size, void **con_cls)
{
    struct request *r = *con_cls;
    (void)version;
    if (!r) {
        r = request_new(cls, connection, url, method);
        if (!r)
            return MHD_NO;
        atomic_fetch_add(&r->listener->active, 1);
        *con_cls = r;
        return request_begin(r, connection);
    }
    if (*upload_data_size > 0) {
        body_take(r, upload_data, *upload_data_size);
        *upload_data_size = 0;
        return r->drained > DRAIN_BYTES ? MHD_NO : MHD_YES;
    }
    return r->answered ? MHD_YES : request_finish(r, connection);
}

static enum metrics_protocol protocol_of(const struct request *r)
{
    return r->row ? r->table->protocol : PROTOCOL_NONE;
}

static void log_who(struct buf *b, const struct exchange *x)
{
    if (x->trace.id[0] != '\0') {
        json_text(b, "trace_id", x->trace.id);
        json_text(b, "span_id", x->trace.span);
        json_text(b, "parent_span_id", x->trace.parent);
    }
    if (x->log_credential)
        json_text(b, "credential", x->log_credential);
    if (x->log_template)
        json_text(b, "template", x->log_template);
    if (x->log_serial)
        json_text(b, "serial", x->log_serial);
}

static void log_request(const struct request *r, enum MHD_RequestTerminationCode toe)
{
    const struct exchange *x = &r->x;
    enum log_level level = x->status >= 500 ? LOG_ERROR : LOG_INFO;
    struct buf b;
    log_begin(&b, level, "request");
    json_text(&b, "request_id", x->request_id);
    json_text(&b, "listener", r->listener->config.name);
    json_text(&b, "protocol", metrics_protocol_name(protocol_of(r)));
    json_text(&b, "source", x->source);
    json_text(&b, "method", r->method_text);
    json_text(&b, "path", x->path);
    json_int(&b, "status", x->status);
    json_text(&b, "outcome", fault_row(x->fault.code)->code);
    if (x->fault.code != FAULT_NONE)
        json_text(&b, "detail", x->fault.detail);
    if (x->told != x->fault.code)
        json_text(&b, "told", fault_row(x->told)->code);
    log_who(&b, x);
    json_int(&b, "bytes_in", (int64_t)r->received);
    json_int(&b, "bytes_out", (int64_t)x->reply.len);
    if (toe != MHD_REQUEST_TERMINATED_COMPLETED_OK)
        json_bool(&b, "delivered", false);
    json_int(&b, "us", clock_mono_us() - x->arrived_us);
    log_end(&b, level);
}

void request_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                       enum MHD_RequestTerminationCode toe)
{
    struct request *r = *con_cls;
    (void)cls;
    (void)connection;
    if (!r)
        return;
    metrics_request(r->listener->service->metrics, r->listener->config.metrics, protocol_of(r),
                    r->x.fault.code, clock_mono_us() - r->x.arrived_us);
    log_request(r, toe);
    atomic_fetch_sub(&r->listener->active, 1);
    connection_await(r->connection, clock_mono_us());
    request_free(r);
    *con_cls = NULL;
}
