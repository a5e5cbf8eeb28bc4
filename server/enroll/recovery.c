#include "enroll/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/json_out.h"
#include "base/text.h"
#include "enroll/recovery_internal.h"
#include "pki/crl_read.h"
#include "store/recovery.h"

enum {
    REPORT_BYTES = 256 << 20,
    BATCH_ENTRIES = 500,
    BATCH_BYTES = 8 << 20,
    MAX_BATCH_BYTES = 16 << 20,
    MAX_BUNDLE_BYTES = 512 << 20,
    MAX_BUNDLE = 4 << 20,
    CERT_BYTES = 1 << 20,
    MAX_NUMBER_BYTES = 7, /* of a CRL: what a bigint and JSON hold */
    MAX_DETAIL_BYTES = 1024,
    US_PER_S = 1000000,
};

void recovery_report_done(struct recovery_report *report)
{
    arena_done(&report->arena);
}

void recovery_gap_note(struct recovery *r, const char *kind, const char *file, int64_t line,
                       const char *fmt, ...)
{
    struct recovery_report *p = r->report;
    char text[MAX_DETAIL_BYTES];
    va_list ap;
    if (p->gap_count >= RECOVERY_MAX_GAPS)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    bool last = p->gap_count + 1 == RECOVERY_MAX_GAPS;
    const char *detail = arena_strdup(&p->arena, last ? "and there are more" : text);
    p->gaps[p->gap_count++] = (struct recovery_gap){kind, file, line, detail ? detail : ""};
}

enum err recovery_failed(struct recovery *r, enum err e, const char *what, const char *name)
{
    if (r->message[0] == '\0')
        snprintf(r->message, DB_MAX_MESSAGE_BYTES, "%.100s %.200s: %s", what, name, err_name(e));
    return e;
}

enum err recovery_flush(struct recovery *r)
{
    if (r->batched == 0)
        return ERR_OK;
    buf_add_char(&r->batch, ']');
    enum err e = r->batch.overflow ? ERR_NO_MEMORY : recovery_stage(r->conn, buf_text(&r->batch));
    buf_reset(&r->batch);
    r->batched = 0;
    return e;
}

enum err recovery_put(struct recovery *r, const char *json)
{
    buf_add_char(&r->batch, r->batched == 0 ? '[' : ',');
    buf_add_text(&r->batch, json);
    r->batched++;
    return r->batched >= BATCH_ENTRIES || r->batch.len >= BATCH_BYTES ? recovery_flush(r) : ERR_OK;
}

/* As a number that fits, or 0. */
static int64_t number_of(struct bytes n)
{
    int64_t value = 0;
    for (size_t i = 0; i < n.len && n.len <= MAX_NUMBER_BYTES; i++)
        value = value << 8 | n.data[i];
    return value;
}

static enum err listed_put(struct recovery *r, const char *issuer, const struct revoked *row,
                           struct arena *arena)
{
    const char *number = text_hex(arena, row->serial_number);
    const char *json =
        number ? arena_printf(
                     arena,
                     "{\"kind\":\"listed\",\"issuer\":\"%s\",\"number\":\"%s\",\"when\":%" PRId64
                     ",\"reason\":\"%s\"}",
                     issuer, number, row->revoked_s * US_PER_S, revocation_reason_name(row->reason))
               : NULL;
    return json ? recovery_put(r, json) : ERR_NO_MEMORY;
}

static const struct recovery_ca *crl_issuer(const struct recovery *r, struct bytes der)
{
    for (size_t i = 0; i < r->cas.count; i++) {
        if (crl_is_of(der, r->cas.rows[i].cert))
            return &r->cas.rows[i];
    }
    return NULL;
}

static enum err crl_put(struct recovery *r, const char *path, const struct crl_info *info,
                        struct arena *arena)
{
    const struct recovery_ca *ca = crl_issuer(r, info->der);
    const char *issuer = ca ? text_hex(arena, bytes_of(ca->fingerprint, SHA256_BYTES)) : NULL;
    if (!ca)
        return recovery_failed(r, ERR_DENIED, "no CA that is known signed", path);
    const char *json =
        issuer ? arena_printf(arena,
                              "{\"kind\":\"crl\",\"issuer\":\"%s\",\"number\":%" PRId64
                              ",\"when\":%" PRId64 "}",
                              issuer, number_of(info->number), info->this_update_s * US_PER_S)
               : NULL;
    enum err e = json ? recovery_put(r, json) : ERR_NO_MEMORY;
    for (size_t i = 0; i < info->count && !e; i++)
        e = listed_put(r, issuer, &info->rows[i], arena);
    return e;
}

static enum err crl_take(struct recovery *r, const char *path)
{
    _cleanup_(arena_donep) struct arena arena;
    _cleanup_(buf_donep) struct buf text = {0};
    struct crl_info info;
    const char *why = "";
    arena_init(&arena, MAX_BUNDLE_BYTES);
    buf_init(&text, CRL_OWN_MAX_BYTES);
    enum err e = file_load(path, &text);
    if (e)
        return recovery_failed(r, e, "cannot read", path);
    e = crl_read_own(buf_bytes(&text), &arena, &info, &why);
    return e ? recovery_failed(r, e, why, path) : crl_put(r, path, &info, &arena);
}

static enum err bundle_cert_take(struct recovery *r, X509 *cert, int64_t at)
{
    _cleanup_(arena_donep) struct arena arena;
    const struct recovery_order *o = r->order;
    const char *json = NULL, *why = "";
    arena_init(&arena, CERT_BYTES);
    enum err e =
        recovery_certificate_read(cert, o->product, o->template, &r->cas, &arena, &json, &why);
    if (e == ERR_INVALID) {
        recovery_gap_note(r, "certificate.unusable", o->bundle, at, "certificate %" PRId64 ": %s",
                          at, why);
        return ERR_OK;
    }
    return e ? recovery_failed(r, e, "reading", o->bundle) : recovery_put(r, json);
}

static enum err bundle_take(struct recovery *r)
{
    static const char end[] = "-----END CERTIFICATE-----";
    _cleanup_(buf_donep) struct buf text = {0};
    buf_init(&text, MAX_BUNDLE_BYTES);
    enum err e = file_load(r->order->bundle, &text);
    if (e)
        return recovery_failed(r, e, "cannot read", r->order->bundle);
    const char *at = buf_text(&text);
    for (int64_t n = 1; !e; n++) {
        _cleanup_(cert_freep) X509 *cert = NULL;
        const char *stop = strstr(at, end);
        if (!stop)
            break;
        stop += strlen(end);
        struct bytes pem = bytes_of((const uint8_t *)at, (size_t)(stop - at));
        at = stop;
        if (cert_parse_first_pem(pem, &cert))
            recovery_gap_note(r, "certificate.unusable", r->order->bundle, n,
                              "certificate %" PRId64 " cannot be read", n);
        else
            e = bundle_cert_take(r, cert, n);
    }
    return e;
}

/* CAs that are in the registry already, for bundles and CRLs without a journal. */
static enum err cas_take(struct recovery *r)
{
    _cleanup_(arena_donep) struct arena arena;
    struct bytes *ders = NULL;
    size_t count = 0;
    arena_init(&arena, MAX_BUNDLE_BYTES);
    enum err e = recovery_cas_load(r->conn, &arena, &ders, &count);
    for (size_t i = 0; i < count && !e; i++)
        e = recovery_cas_add(&r->cas, ders[i]);
    return e;
}

static enum err sources_read(struct recovery *r)
{
    const struct recovery_order *o = r->order;
    enum err e = cas_take(r);
    if (!e)
        e = recovery_journals_read(r);
    for (size_t i = 0; i < o->crl_count && !e; i++)
        e = crl_take(r, o->crls[i]);
    if (!e && o->bundle)
        e = bundle_take(r);
    return e ? e : recovery_flush(r);
}

struct run {
    const struct recovery_order *order;
    struct recovery_report *report;
    char *message;
    bool done; /* a dry run's: all went well */
};

static enum err report_begin(struct run *run)
{
    struct recovery_report *p = run->report;
    arena_done(&p->arena);
    *p = (struct recovery_report){.dry_run = run->order->dry_run};
    arena_init(&p->arena, REPORT_BYTES);
    p->gaps = arena_alloc(&p->arena, RECOVERY_MAX_GAPS * sizeof(*p->gaps));
    run->message[0] = '\0';
    run->done = false;
    return p->gaps ? ERR_OK : ERR_NO_MEMORY;
}

/* A dry run ends as a refusal, which takes everything back. */
static enum err rebuild(struct db_conn *conn, void *ctx)
{
    struct run *run = ctx;
    struct recovery r = {
        .order = run->order, .report = run->report, .conn = conn, .message = run->message};
    enum err e = report_begin(run);
    if (e)
        return e;
    recovery_cas_init(&r.cas);
    buf_init(&r.batch, MAX_BATCH_BYTES);
    e = recovery_begin(conn);
    if (!e)
        e = sources_read(&r);
    if (!e)
        e = recovery_apply(conn, run->order->onto_existing, &run->report->arena,
                           &run->report->applied);
    run->done = e == ERR_OK;
    buf_done(&r.batch);
    recovery_cas_done(&r.cas);
    return run->done && run->order->dry_run ? ERR_DENIED : e;
}

enum err recovery_run(struct db *db, const struct recovery_order *order,
                      struct recovery_report *ret_report, char *message)
{
    char own[DB_MAX_MESSAGE_BYTES] = "";
    struct run run = {.order = order, .report = ret_report, .message = own};
    enum err e = db_transaction(db, rebuild, &run, message);
    if (run.done && order->dry_run)
        return ERR_OK;
    if (e && own[0] != '\0')
        snprintf(message, DB_MAX_MESSAGE_BYTES, "%s", own);
    return e;
}
