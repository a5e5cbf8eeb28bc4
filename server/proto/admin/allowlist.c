/* Importing allowlists: lines in, COPY rows out, a report back. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/text.h"
#include "enroll/catalog.h"
#include "enroll/service.h"
#include "proto/admin/allowlist.h"
#include "proto/admin/hooks.h"

enum { MAX_LINES = 100000 };

/* COPY's text format: tab, newline and backslash are escaped, \N is NULL. */
static void column_add(struct buf *b, const char *text)
{
    if (!text) {
        buf_add_text(b, "\\N");
        return;
    }
    for (; *text; text++) {
        if (strchr("\t\n\r\\", *text))
            buf_printf(b, "\\%s",
                       *text == '\t'   ? "t"
                       : *text == '\n' ? "n"
                       : *text == '\r' ? "r"
                                       : "\\");
        else
            buf_add_char(b, *text);
    }
}

void allowlist_row_add(struct buf *b, size_t number, const struct allowlist_line *l,
                       const char *reason)
{
    buf_printf(b, "%zu\t", number);
    column_add(b, reason ? l->shown : l->serial.given);
    buf_add_char(b, '\t');
    column_add(b, reason ? NULL : l->serial.canonical);
    buf_add_char(b, '\t');
    if (!reason && l->pinned) {
        buf_add_text(b, "\\\\x");
        text_add_hex(b, bytes_of(l->pin, sizeof(l->pin)));
    } else {
        column_add(b, NULL);
    }
    buf_add_char(b, '\t');
    column_add(b, !reason && l->batch[0] ? l->batch : NULL);
    buf_add_char(b, '\t');
    column_add(b, reason);
    buf_add_char(b, '\n');
}

static enum err lines_convert(struct exchange *x, enum allowlist_format format,
                              const struct serial_rule *rule, struct buf *rows)
{
    struct bytes rest = x->body;
    char reason[ALLOWLIST_REASON_BYTES];
    for (size_t number = 1; rest.len > 0; number++) {
        const uint8_t *end = memchr(rest.data, '\n', rest.len);
        size_t len = end ? (size_t)(end - rest.data) : rest.len;
        struct allowlist_line line;
        if (number > MAX_LINES)
            return fault_set(&x->fault, FAULT_REQUEST_TOO_LARGE, "at most %d lines at once",
                             MAX_LINES);
        enum err e =
            allowlist_line_parse(format, rule, (const char *)rest.data, len, number, &line, reason);
        if (e || !line.skip)
            allowlist_row_add(rows, number, &line, e ? reason : NULL);
        size_t used = len + (end != NULL);
        rest = bytes_of(rest.data + used, rest.len - used);
    }
    return rows->overflow ? fault_set(&x->fault, FAULT_REQUEST_TOO_LARGE, "too many lines")
                          : ERR_OK;
}

static enum err format_take(struct exchange *x, enum allowlist_format *ret_format)
{
    if (exchange_type_is(x, "text/csv"))
        *ret_format = ALLOWLIST_CSV;
    else if (exchange_type_is(x, "application/x-ndjson"))
        *ret_format = ALLOWLIST_JSON;
    else
        return fault_set(&x->fault, FAULT_REQUEST_TYPE,
                         "Content-Type must be text/csv or application/x-ndjson");
    return ERR_OK;
}

enum err allowlist_rule_take(struct service *service, struct exchange *x, const char *product,
                             struct serial_rule *ret_rule)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    catalog_expire(service->catalog);
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    const struct catalog_product *p = snapshot_product(snapshot, product);
    if (!p)
        return fault_set(&x->fault, FAULT_OBJECT_NOT_FOUND, "there is no product %s", product);
    *ret_rule = p->rule;
    return ERR_OK;
}

enum err allowlist_rows_import(struct service *service, struct exchange *x, const json_t *args,
                               struct bytes rows)
{
    const struct admin_session *s = x->adapter;
    struct desk_answer answer = {0};
    char message[DB_MAX_MESSAGE_BYTES] = "";
    char *text = json_dumps(args, JSON_COMPACT);
    enum err e = text ? desk_import(service->db, s->json, text, rows, x->arena, &answer, message)
                      : ERR_NO_MEMORY;
    free(text);
    return e ? admin_refused(x, e, message) : admin_reply(x, 200, answer.json);
}

enum err allowlist_import_handle(struct service *service, struct exchange *x)
{
    _cleanup_(json_decrefp) json_t *args = NULL;
    _cleanup_(buf_donep) struct buf rows = {0};
    enum allowlist_format format = ALLOWLIST_CSV;
    struct serial_rule rule = {0};
    buf_init(&rows, ALLOWLIST_MAX_ROWS_BYTES);
    enum err e = admin_args(x->route->more, x, &args);
    if (!e)
        e = format_take(x, &format);
    if (!e)
        e = allowlist_rule_take(service, x, json_string_value(json_object_get(args, "product")),
                                &rule);
    if (!e)
        e = lines_convert(x, format, &rule, &rows);
    return e ? e : allowlist_rows_import(service, x, args, buf_bytes(&rows));
}
