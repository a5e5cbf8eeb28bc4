#include "proto/exchange.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/json_out.h"
#include "base/secret.h"
#include "base/text.h"

enum { MAX_PROBLEM_BYTES = 4096, RETRY_SPREAD_S = 4 };

const char *exchange_header(const struct exchange *x, const char *name)
{
    for (size_t i = 0; i < x->header_count; i++) {
        if (text_equal_nocase(x->headers[i].name, name))
            return x->headers[i].value;
    }
    return NULL;
}

void exchange_add_header(struct exchange *x, const char *name, const char *value)
{
    if (x->reply_header_count < EXCHANGE_MAX_REPLY_HEADERS)
        x->reply_headers[x->reply_header_count++] = (struct pair){name, value};
}

void exchange_reply(struct exchange *x, int status, const char *type, struct bytes body)
{
    x->status = status;
    x->reply_type = type;
    x->reply = body;
}

enum err exchange_reply_buf(struct exchange *x, int status, const char *type, const struct buf *b)
{
    const void *body = b->overflow ? NULL : arena_copy(x->arena, b->data, b->len);
    if (!body)
        return ERR_NO_MEMORY;
    exchange_reply(x, status, type, bytes_of(body, b->len));
    return ERR_OK;
}

bool exchange_type_is(const struct exchange *x, const char *type)
{
    const char *given = exchange_header(x, "Content-Type");
    if (!given)
        return false;
    size_t len = strcspn(given, "; \t");
    return len == strlen(type) && strncasecmp(given, type, len) == 0;
}

int exchange_retry_s(const struct fault *f, const struct fault_row *row)
{
    uint8_t r = 0;
    if (f->retry_after_s > 0 || !row->retry || (row->http_status != 503 && row->http_status != 429))
        return f->retry_after_s;
    (void)!secret_random(&r, 1);
    return 1 + r % RETRY_SPREAD_S;
}

void exchange_add_retry(struct exchange *x, int seconds)
{
    char *text = seconds > 0 ? arena_printf(x->arena, "%d", seconds) : NULL;
    if (text)
        exchange_add_header(x, "Retry-After", text);
}

void exchange_problem(struct exchange *x, enum fault_code seen)
{
    if (x->problem) {
        x->problem(x, seen);
        return;
    }
    const struct fault_row *row = fault_row(seen);
    struct buf b;
    buf_init(&b, MAX_PROBLEM_BYTES);
    json_begin_object(&b);
    buf_printf(&b, "\"type\":\"urn:muster:error:%s\"", row->code);
    json_text(&b, "title", row->title);
    json_int(&b, "status", row->http_status);
    json_text(&b, "code", row->code);
    if (seen == x->fault.code && seen != FAULT_INTERNAL && x->fault.detail[0] != '\0')
        json_text(&b, "detail", x->fault.detail);
    json_text(&b, "request_id", x->request_id);
    json_end_object(&b);
    buf_add_char(&b, '\n');
    const void *body = arena_copy(x->arena, b.data, b.len);
    exchange_add_retry(x, exchange_retry_s(&x->fault, row));
    const char *type = row->http_status < 400 ? "application/json" : "application/problem+json";
    exchange_reply(x, row->http_status, body ? type : NULL, bytes_of(body, body ? b.len : 0));
    x->told = seen;
    buf_done(&b);
}
