/* Certificates of a batch, registered ahead of their devices: a JSON object a line, a result a
 * line. A line that was done before is found again, so an import may be sent twice. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "enroll/catalog.h"
#include "enroll/service.h"
#include "proto/admin/certs.h"
#include "proto/admin/hooks.h"

enum { MAX_LINES = 2000, REASON_BYTES = 256 };

static const char certificate_member[] = "CertificatePem";

struct import {
    struct service *service;
    struct exchange *x;
    const char *template;
    bool all; /* lines that went well are told too */
    json_t *lines;
    json_int_t imported, duplicate, rejected;
};

struct outcome {
    const char *serial; /* NULL: not known */
    const char *result;
    const char *reason;
};

static void outcome_refused(struct outcome *o, const struct fault *f, struct arena *arena)
{
    o->result = f->code == FAULT_REQUEST_EXISTS ? "duplicate" : "rejected";
    o->reason = arena_printf(arena, "%s: %.*s", fault_row(f->code)->code, REASON_BYTES, f->detail);
}

/* With a template there is a device afterwards; without, its first contact makes it. */
static enum err wish_do(struct import *i, const struct cert_wish *w, struct outcome *o,
                        struct fault *fault)
{
    struct enrollment_result result = {0};
    const char *json;
    o->result = "imported";
    o->serial = w->leaf.cn;
    if (!w->template)
        return cert_wish_record(i->service, i->x, w, "active", &json, fault);
    enum err e = cert_wish_begin(i->service, i->x, w, fault);
    if (!e)
        e = cert_wish_provision(i->service, i->x, w, &result, fault);
    if (!e && result.replayed)
        o->result = "duplicate";
    if (!e && result.serial)
        o->serial = result.serial;
    return e;
}

static enum err line_do(struct import *i, json_t *line, struct outcome *o, struct fault *fault)
{
    struct cert_wish w = {.template = i->template, .vouch = VOUCH_AHEAD, .operation = "register"};
    json_t *pem = json_object_get(line, certificate_member);
    if (!json_is_string(pem))
        return fault_set(fault, FAULT_REQUEST_MALFORMED,
                         "the line is no JSON object with CertificatePem");
    json_incref(pem);
    json_object_del(line, certificate_member);
    enum err e = cert_wish_parameters(&w, line, fault);
    if (!e)
        e = cert_wish_pem(i->service, i->x->arena, json_string_value(pem), &w, fault);
    if (!e)
        e = wish_do(i, &w, o, fault);
    json_decref(pem);
    return e;
}

/* That the registry is away or the server busy is no line's fault: the request ends. */
static enum err line_take(struct import *i, const char *text, size_t len, size_t number)
{
    _cleanup_(json_decrefp) json_t *line = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    struct outcome o = {0};
    struct fault fault = {0};
    enum err e = line_do(i, line, &o, &fault);
    if (e && fault_row(fault.code)->http_status >= 500) {
        i->x->fault = fault;
        return e;
    }
    if (e)
        outcome_refused(&o, &fault, i->x->arena);
    i->imported += strcmp(o.result, "imported") == 0;
    i->duplicate += strcmp(o.result, "duplicate") == 0;
    bool rejected = strcmp(o.result, "rejected") == 0;
    i->rejected += rejected;
    if (!rejected && !i->all)
        return ERR_OK;
    json_t *told = json_pack("{s:I, s:s?, s:s, s:s?}", "line", (json_int_t)number, "serial",
                             o.serial, "result", o.result, "reason", o.reason);
    return json_array_append_new(i->lines, told)
               ? fault_set(&i->x->fault, FAULT_INTERNAL, "out of memory")
               : ERR_OK;
}

static bool is_blank(const char *text, size_t len)
{
    size_t i = 0;
    while (i < len && strchr(" \t\r", text[i]))
        i++;
    return i == len;
}

static enum err lines_take(struct import *i)
{
    struct bytes rest = i->x->body;
    enum err e = ERR_OK;
    for (size_t number = 1; rest.len > 0 && !e; number++) {
        const uint8_t *end = memchr(rest.data, '\n', rest.len);
        size_t len = end ? (size_t)(end - rest.data) : rest.len;
        if (number > MAX_LINES)
            return fault_set(&i->x->fault, FAULT_REQUEST_TOO_LARGE, "at most %d lines at once",
                             MAX_LINES);
        if (!is_blank((const char *)rest.data, len))
            e = line_take(i, (const char *)rest.data, len, number);
        size_t used = len + (end != NULL);
        rest = bytes_of(rest.data + used, rest.len - used);
    }
    return e;
}

static enum err report_reply(struct import *i)
{
    _cleanup_(json_decrefp) json_t *report =
        json_pack("{s:I, s:I, s:I, s:O}", "imported", i->imported, "duplicate", i->duplicate,
                  "rejected", i->rejected, "lines", i->lines);
    char *text = report ? json_dumps(report, JSON_COMPACT) : NULL;
    enum err e = text ? admin_reply(i->x, 200, text)
                      : fault_set(&i->x->fault, FAULT_INTERNAL, "out of memory");
    free(text);
    return e;
}

/* An operator who may not see the template gets no line done. */
static enum err template_check(struct import *i)
{
    struct desk_answer answer = {0};
    _cleanup_(json_decrefp) json_t *args = json_pack("{s:s}", "name", i->template);
    return args ? admin_ask(i->service, i->x, DESK_TEMPLATE_SHOW, args, &answer)
                : fault_set(&i->x->fault, FAULT_INTERNAL, "out of memory");
}

enum err cert_import_handle(struct service *service, struct exchange *x)
{
    _cleanup_(json_decrefp) json_t *args = NULL;
    _cleanup_(json_decrefp) json_t *lines = json_array();
    enum err e = admin_args(x->route->more, x, &args);
    if (e)
        return e;
    const char *report = json_string_value(json_object_get(args, "report"));
    struct import i = {.service = service,
                       .x = x,
                       .template = json_string_value(json_object_get(args, "template")),
                       .all = !report || strcmp(report, "all") == 0,
                       .lines = lines};
    catalog_expire(service->catalog);
    if (!lines)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    e = i.template ? template_check(&i) : ERR_OK;
    if (!e)
        e = lines_take(&i);
    return e ? e : report_reply(&i);
}
