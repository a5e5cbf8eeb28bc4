/* Refusals as DPS has them. Clients die of 429 and 503 but bear waiting, so what is temporary is an
 * operation under way. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json_out.h"
#include "proto/dps/internal.h"
#include "proto/route.h"

enum {
    MAX_PROBLEM_BYTES = 4096,
    CODE_FACTOR = 1000,
    LEAST_RETRY_S = 3,
    MOST_RETRY_S = 300,
    TIME_BYTES = 32
};

/* HTTP status to the code that stands in the body; 403 is not a status of DPS. */
static const struct {
    int http;
    int status;
    int code;
} codes[] = {{400, 400, 400004}, {401, 401, 401002}, {403, 401, 401002}, {404, 404, 404201},
             {405, 405, 405000}, {409, 409, 409001}, {412, 412, 412001}, {413, 413, 413000},
             {415, 415, 415000}, {429, 429, 429001}, {500, 500, 500001}, {503, 503, 503001}};

const char *dps_time(struct arena *arena, int64_t wall_s)
{
    char text[TIME_BYTES];
    struct tm tm;
    time_t t = (time_t)wall_s;
    if (!gmtime_r(&t, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return NULL;
    return arena_strdup(arena, text);
}

static enum dps_kind kind_of(const struct exchange *x)
{
    return *(const enum dps_kind *)x->route->more;
}

/* May the same request, or its polling, still succeed by itself? */
static bool is_temporary(const struct exchange *x, const struct fault_row *row)
{
    bool waits = row->http_status == 202 || row->http_status == 429 || row->http_status == 503;
    return waits && x->route && kind_of(x) != DPS_LOOKUP;
}

/* Whether polling alone could do what was asked. */
static bool is_guessable(const struct exchange *x)
{
    struct exchange copy = *x;
    struct dps_request rq;
    return dps_request_read(&copy, x->args[1], x->body, &rq) == ERR_OK && !rq.has_body;
}

/* A handler that has kept the request leaves its operation's id here. */
static const char *operation_of(struct exchange *x)
{
    char id[DPS_OPERATION_BYTES];
    if (x->adapter)
        return x->adapter;
    if (kind_of(x) == DPS_POLL)
        return x->args[2];
    enum dps_kept kept = is_guessable(x) ? DPS_GUESSABLE : DPS_LOST;
    if (dps_operation_make(x->args[1], kept, x->request_id, id))
        return NULL;
    return arena_strdup(x->arena, id);
}

static void wait_send(struct exchange *x, const struct fault_row *row, const char *operation)
{
    _cleanup_(buf_donep) struct buf b = {0};
    int retry_s = exchange_retry_s(&x->fault, row);
    buf_init(&b, MAX_PROBLEM_BYTES);
    json_begin_object(&b);
    json_text(&b, "operationId", operation);
    json_text(&b, "status", "assigning");
    json_end_object(&b);
    if (retry_s < LEAST_RETRY_S)
        retry_s = LEAST_RETRY_S;
    if (retry_s > MOST_RETRY_S) /* past it the C SDK asks every second */
        retry_s = MOST_RETRY_S;
    exchange_add_retry(x, retry_s);
    if (kind_of(x) == DPS_REGISTER)
        exchange_add_header(x, "Location", x->path);
    if (exchange_reply_buf(x, 202, "application/json; charset=utf-8", &b))
        exchange_reply(x, 503, NULL, bytes_of(NULL, 0));
}

/* "What it is: what is wrong with it": SDKs show the message and little else. */
static const char *message_of(const struct exchange *x, enum fault_code seen)
{
    const struct fault_row *row = fault_row(seen);
    if (seen == FAULT_ENROL_REFUSED)
        return "Unauthorized: no enrollment of this registration id accepts this key or "
               "certificate; "
               "compare ID scope, registration id and key";
    if (seen == x->fault.code && seen != FAULT_INTERNAL && x->fault.detail[0] != '\0')
        return arena_printf(x->arena, "%s: %s", row->title, x->fault.detail);
    return row->title;
}

static void error_send(struct exchange *x, enum fault_code seen)
{
    _cleanup_(buf_donep) struct buf b = {0};
    const struct fault_row *row = fault_row(seen);
    size_t i = 0;
    while (i + 1 < ARRAY_LEN(codes) && codes[i].http != row->http_status)
        i++;
    char *text = arena_printf(x->arena, "%d", codes[i].code);
    const char *now = dps_time(x->arena, clock_wall_s());
    buf_init(&b, MAX_PROBLEM_BYTES);
    json_begin_object(&b);
    json_int(&b, "errorCode", codes[i].code);
    json_text(&b, "trackingId", x->request_id);
    json_text(&b, "message", message_of(x, seen));
    json_key(&b, "info");
    json_begin_object(&b);
    json_text(&b, "code", row->code);
    json_text(&b, "serverTimeUtc", now);
    json_end_object(&b);
    json_text(&b, "timestampUtc", now);
    json_end_object(&b);
    if (text)
        exchange_add_header(x, "x-ms-error-code", text);
    exchange_add_retry(x, exchange_retry_s(&x->fault, row));
    if (exchange_reply_buf(x, codes[i].status, "application/json; charset=utf-8", &b))
        exchange_reply(x, codes[i].status, NULL, bytes_of(NULL, 0));
}

void dps_problem(struct exchange *x, enum fault_code seen)
{
    const struct fault_row *row = fault_row(seen);
    const char *operation = is_temporary(x, row) ? operation_of(x) : NULL;
    x->told = seen;
    if (operation)
        wait_send(x, row, operation);
    else
        error_send(x, seen);
}
