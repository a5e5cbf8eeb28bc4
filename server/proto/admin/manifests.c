/* Secure element manifests: whose signatures count, and importing one as an allowlist. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "enroll/service.h"
#include "pki/cert.h"
#include "proto/admin/allowlist.h"
#include "proto/admin/hooks.h"
#include "proto/admin/manifest_line.h"

enum { MAX_SIGNERS = 100, MAX_LINES = 20000, LINE_ARENA_BYTES = 1 << 20 };

struct signers {
    struct manifest_signer rows[MAX_SIGNERS];
    size_t count;
};

static void signers_done(struct signers *s)
{
    for (size_t i = 0; i < s->count; i++)
        cert_free(s->rows[i].cert);
}

static enum err signer_take(struct exchange *x, const json_t *row, struct manifest_signer *ret)
{
    struct cert_info info;
    const char *pem = json_string_value(json_object_get(row, "pem"));
    enum err e = pem ? cert_parse_first_pem(bytes_text(pem), &ret->cert) : ERR_INVALID;
    if (!e)
        e = cert_describe(x->arena, ret->cert, &info);
    if (!e)
        memcpy(ret->fingerprint, info.fingerprint, SHA256_BYTES);
    return e;
}

static enum err signers_load(struct service *service, struct exchange *x, struct signers *s)
{
    struct desk_answer answer = {0};
    _cleanup_(json_decrefp) json_t *args = json_pack("{s:i}", "limit", MAX_SIGNERS);
    enum err e = args ? admin_ask(service, x, DESK_SIGNER_LIST, args, &answer)
                      : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    if (e)
        return e;
    _cleanup_(json_decrefp) json_t *rows = json_loads(answer.json, 0, NULL);
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        if (s->count < MAX_SIGNERS && signer_take(x, row, &s->rows[s->count]) == ERR_OK)
            s->count++;
    }
    return ERR_OK;
}

static enum err entries_convert(struct exchange *x, const struct manifest_rule *rule,
                                struct buf *rows)
{
    struct bytes rest = x->body;
    char reason[ALLOWLIST_REASON_BYTES];
    for (size_t number = 1; rest.len > 0; number++) {
        _cleanup_(arena_donep) struct arena arena;
        const uint8_t *end = memchr(rest.data, '\n', rest.len);
        size_t len = end ? (size_t)(end - rest.data) : rest.len;
        struct allowlist_line line;
        arena_init(&arena, LINE_ARENA_BYTES);
        if (number > MAX_LINES)
            return fault_set(&x->fault, FAULT_REQUEST_TOO_LARGE, "at most %d entries at once",
                             MAX_LINES);
        enum err e = manifest_line_parse(rule, (const char *)rest.data, len, &arena, &line, reason);
        if (e || !line.skip)
            allowlist_row_add(rows, number, &line, e ? reason : NULL);
        size_t used = len + (end != NULL);
        rest = bytes_of(rest.data + used, rest.len - used);
    }
    return rows->overflow ? fault_set(&x->fault, FAULT_REQUEST_TOO_LARGE, "too many entries")
                          : ERR_OK;
}

static enum err import(struct service *service, struct exchange *x, const json_t *args,
                       struct signers *signers)
{
    _cleanup_(buf_donep) struct buf rows = {0};
    struct serial_rule serial = {0};
    const char *key = json_string_value(json_object_get(args, "key"));
    struct manifest_rule rule = {.signers = signers->rows,
                                 .signer_count = signers->count,
                                 .key = key ? key : "0",
                                 .serial = &serial};
    buf_init(&rows, ALLOWLIST_MAX_ROWS_BYTES);
    enum err e = allowlist_rule_take(service, x,
                                     json_string_value(json_object_get(args, "product")), &serial);
    if (!e)
        e = entries_convert(x, &rule, &rows);
    return e ? e : allowlist_rows_import(service, x, args, buf_bytes(&rows));
}

enum err manifest_import_handle(struct service *service, struct exchange *x)
{
    _cleanup_(json_decrefp) json_t *args = NULL;
    _cleanup_(signers_done) struct signers signers = {.count = 0};
    enum err e = admin_args(x->route->more, x, &args);
    if (!e)
        e = signers_load(service, x, &signers);
    return e ? e : import(service, x, args, &signers);
}

/* What the desk wants to know of the certificate. */
enum err manifest_signer_before(struct service *service, struct exchange *x, json_t *args)
{
    _cleanup_(cert_freep) X509 *cert = NULL;
    struct cert_info info;
    struct bytes der;
    (void)service;
    const char *pem = json_string_value(json_object_get(args, "pem"));
    enum err e = pem ? cert_parse_first_pem(bytes_text(pem), &cert) : ERR_INVALID;
    if (!e)
        e = cert_describe(x->arena, cert, &info);
    if (!e)
        e = cert_encode(x->arena, cert, &der);
    if (e)
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                         "pem is no certificate that can be read");
    int rc =
        admin_hex_add(x->arena, args, "der", der) |
        admin_hex_add(x->arena, args, "fingerprint", bytes_of(info.fingerprint, SHA256_BYTES)) |
        json_object_set_new(args, "subject", json_string(info.subject_text)) |
        json_object_set_new(args, "not_after", json_integer(info.not_after_s));
    json_object_del(args, "pem");
    return rc ? fault_set(&x->fault, FAULT_INTERNAL, "out of memory") : ERR_OK;
}
