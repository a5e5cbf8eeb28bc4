#include "proto/units.h"

#include <jansson.h>
#include <string.h>

#include "base/base64.h"
#include "base/json_out.h"
#include "enroll/factory_journal.h"
#include "pki/cert.h"

/* The request's own arena is for requests of devices. */
enum { MAX_REPLY_BYTES = 8 << 20, UNITS_ARENA_BYTES = 256 << 20 };

static enum err no_memory(struct exchange *x)
{
    return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
}

enum err units_line_parse(struct bytes text, struct arena *arena, struct factory_unit *ret_unit)
{
    _cleanup_(json_decrefp) json_t *o =
        json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    const char *serial = json_string_value(json_object_get(o, "serial"));
    const char *csr = json_string_value(json_object_get(o, "csr"));
    if (!serial || !csr || json_object_size(o) != 2)
        return ERR_INVALID;
    size_t len = strlen(csr);
    struct factory_unit unit = {.serial = arena_strdup(arena, serial),
                                .csr = bytes_of(arena_copy(arena, csr, len), len)};
    if (!unit.serial || !unit.csr.data)
        return ERR_NO_MEMORY;
    *ret_unit = unit;
    return ERR_OK;
}

static enum err units_read(struct exchange *x, size_t most, struct arena *arena,
                           struct factory_unit *units, size_t *ret_count)
{
    struct bytes rest = x->body;
    size_t count = 0;
    while (rest.len > 0) {
        const uint8_t *end = memchr(rest.data, '\n', rest.len);
        size_t len = end ? (size_t)(end - rest.data) : rest.len;
        if (count == most)
            return fault_set(&x->fault, FAULT_REQUEST_TOO_LARGE, "at most %zu lines at once", most);
        enum err e = units_line_parse(bytes_of(rest.data, len), arena, &units[count]);
        if (e == ERR_NO_MEMORY)
            return no_memory(x);
        if (e)
            return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                             "line %zu is no JSON object with serial and csr", count + 1);
        count++;
        rest = bytes_of(rest.data + len + (end != NULL), rest.len - len - (end != NULL));
    }
    *ret_count = count;
    return count > 0 ? ERR_OK : fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "no line");
}

static void unit_write(struct buf *b, const struct factory_unit *u, size_t number)
{
    static const char *const results[] = {"issued", "replayed", "rejected"};
    json_begin_object(b);
    json_int(b, "line", (int64_t)number);
    json_text(b, "serial", u->serial);
    json_text(b, "result", results[u->result]);
    if (u->result == FACTORY_REJECTED) {
        json_text(b, "reason", u->reason);
    } else {
        json_key(b, "certificate");
        buf_add_char(b, '"');
        base64_encode(b, u->certificate);
        buf_add_char(b, '"');
    }
    json_end_object(b);
}

static enum err chain_write(struct exchange *x, struct buf *b, const struct factory_chain *chain)
{
    const char *all = "";
    for (size_t i = 0; i < chain->count && all; i++) {
        const char *pem = cert_pem(x->arena, chain->der[i]);
        all = pem ? arena_printf(x->arena, "%s%s", all, pem) : NULL;
    }
    json_text(b, "chain_pem", all);
    return all ? ERR_OK : no_memory(x);
}

static enum err units_reply(struct exchange *x, const char *batch, const struct factory_unit *units,
                            size_t count, const struct factory_chain *chain)
{
    static const char *const counts[] = {"issued", "replayed", "rejected"};
    _cleanup_(buf_donep) struct buf b = {0};
    size_t n[ARRAY_LEN(counts)] = {0};
    for (size_t i = 0; i < count; i++)
        n[units[i].result]++;
    buf_init(&b, MAX_REPLY_BYTES);
    json_begin_object(&b);
    json_text(&b, "batch", batch);
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        json_int(&b, counts[i], (int64_t)n[i]);
    enum err e = chain_write(x, &b, chain);
    json_key(&b, "lines");
    json_begin_array(&b);
    for (size_t i = 0; i < count; i++)
        unit_write(&b, &units[i], i + 1);
    json_end_array(&b);
    json_end_object(&b);
    buf_add_char(&b, '\n');
    if (e || exchange_reply_buf(x, 200, "application/json", &b))
        return no_memory(x);
    return ERR_OK;
}

/* The only argument that a route may have, and its only value, for operators alone. */
static enum err accept_take(struct exchange *x, const struct factory_job *job, const char *name,
                            bool *ret_accept)
{
    *ret_accept = false;
    for (size_t i = 0; i < x->query_count; i++) {
        if (!job->op || strcmp(x->query[i].name, name) != 0 ||
            strcmp(x->query[i].value, "accept") != 0)
            return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                             job->op ? "the only argument is %s=accept"
                                     : "%s=accept is for operators, and there is no other argument",
                             name);
        *ret_accept = true;
    }
    return ERR_OK;
}

enum err units_certify(struct service *service, struct exchange *x, const struct factory_job *job,
                       size_t most)
{
    _cleanup_(arena_donep) struct arena arena;
    struct factory_chain chain = {.count = 0};
    struct factory_job mine = *job;
    size_t count = 0;
    bool again = false;
    arena_init(&arena, UNITS_ARENA_BYTES);
    struct factory_unit *units = arena_alloc(&arena, most * sizeof(*units));
    enum err e = units ? accept_take(x, job, "again", &again) : no_memory(x);
    if (!e)
        e = units_read(x, most, &arena, units, &count);
    mine.again = again || !job->op;
    if (!e)
        e = factory_units_certify(service, &mine, units, count, &arena, &chain, &x->fault);
    return e ? e : units_reply(x, job->scope->batch, units, count, &chain);
}

static enum err journal_reply(struct exchange *x, const char *station,
                              const struct factory_journal *j)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_REPLY_BYTES);
    json_begin_object(&b);
    json_text(&b, "station", station);
    json_int(&b, "recorded", (int64_t)j->recorded);
    json_int(&b, "known", (int64_t)j->known);
    json_int(&b, "registered", (int64_t)j->registered);
    json_int(&b, "missing", j->missing);
    json_int(&b, "unsealed", (int64_t)j->unsealed);
    json_int(&b, "head", j->head);
    json_key(&b, "lines");
    json_begin_array(&b);
    for (size_t i = 0; i < j->bad_count; i++) {
        json_begin_object(&b);
        json_int(&b, "n", j->bad[i].n);
        json_text(&b, "serial", j->bad[i].serial);
        json_text(&b, "reason", j->bad[i].reason);
        json_end_object(&b);
    }
    json_end_array(&b);
    json_end_object(&b);
    buf_add_char(&b, '\n');
    return exchange_reply_buf(x, 200, "application/json", &b) ? no_memory(x) : ERR_OK;
}

enum err units_journal(struct service *service, struct exchange *x, const struct factory_job *job)
{
    _cleanup_(arena_donep) struct arena arena;
    struct factory_journal journal;
    bool accept_gap;
    arena_init(&arena, UNITS_ARENA_BYTES);
    enum err e = accept_take(x, job, "gap", &accept_gap);
    if (!e)
        e = factory_journal_take(service, job, x->body, accept_gap, &arena, &journal, &x->fault);
    return e ? e : journal_reply(x, job->scope->station, &journal);
}
