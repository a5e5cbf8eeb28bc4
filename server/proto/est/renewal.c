/*
 * GET /renewal-info/AKI.SERIAL: when a certificate should be renewed (the renewal information of
 * RFC 9773 section 4, for EST). Nobody is authenticated: a serial number has 159 random bits.
 */
#include <string.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json_out.h"
#include "enroll/service.h"
#include "proto/est/internal.h"
#include "store/enrol.h"

enum { MAX_NAME_BYTES = 128, MAX_ANSWER_BYTES = 1024, DAY_S = 86400, ASK_AGAIN_S = 6 * 3600 };

static enum err part_decode(struct exchange *x, const char *text, size_t len, struct bytes *ret)
{
    return len > 0 && len <= MAX_NAME_BYTES ? base64url_decode(x->arena, bytes_of(text, len), ret)
                                            : ERR_INVALID;
}

static enum err name_parse(struct exchange *x, struct bytes *ret_aki, struct bytes *ret_serial)
{
    const char *name = x->args[1] ? x->args[1] : x->args[0];
    const char *dot = strchr(name, '.');
    enum err e = dot ? part_decode(x, name, (size_t)(dot - name), ret_aki) : ERR_INVALID;
    if (!e)
        e = part_decode(x, dot + 1, strlen(dot + 1), ret_serial);
    /* the DER of an INTEGER may have a leading zero, the registry keeps the magnitude */
    while (!e && ret_serial->len > 1 && ret_serial->data[0] == 0)
        *ret_serial = bytes_of(ret_serial->data + 1, ret_serial->len - 1);
    return e == ERR_INVALID ? fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                                        "the path ends in BASE64URL(AKI).BASE64URL(SERIAL)")
                            : e;
}

/* From the time a renewal is allowed, half the time that is left; at once where the certificate
 * is no longer to be used. */
static void window_pick(const struct enrol_renewal *r, int64_t renew_before_s, int64_t *ret_start_s,
                        int64_t *ret_end_s)
{
    int64_t now_s = clock_wall_s();
    *ret_start_s = r->not_after_s - renew_before_s;
    *ret_end_s = r->not_after_s - renew_before_s / 2;
    if (!r->live) {
        *ret_start_s = now_s - 2 * DAY_S;
        *ret_end_s = now_s - DAY_S;
    }
}

static enum err reply(struct exchange *x, int64_t start_s, int64_t end_s)
{
    _cleanup_(buf_donep) struct buf b = {0};
    char start[CLOCK_TEXT_BYTES], end[CLOCK_TEXT_BYTES];
    clock_text(start_s, start);
    clock_text(end_s, end);
    buf_init(&b, MAX_ANSWER_BYTES);
    json_begin_object(&b);
    json_key(&b, "suggestedWindow");
    json_begin_object(&b);
    json_text(&b, "start", start);
    json_text(&b, "end", end);
    json_end_object(&b);
    json_end_object(&b);
    buf_add_char(&b, '\n');
    const char *again = arena_printf(x->arena, "%d", ASK_AGAIN_S);
    if (!again)
        return ERR_NO_MEMORY;
    exchange_add_header(x, "Retry-After", again);
    return exchange_reply_buf(x, 200, "application/json", &b);
}

enum err est_renewal_info_handle(struct service *service, struct exchange *x)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    struct bytes aki, serial;
    struct enrol_renewal r = {0};
    int64_t start_s, end_s;
    enum err e = name_parse(x, &aki, &serial);
    if (e)
        return e;
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    const struct catalog_ca *ca = snapshot_own_ca(snapshot, aki);
    e = ca ? enrol_renewal_get(service->db, x->arena, ca->id, serial, &r) : ERR_NOT_FOUND;
    if (e == ERR_NOT_FOUND)
        return fault_set(&x->fault, FAULT_OBJECT_NOT_FOUND, "no certificate of ours has this name");
    if (e)
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "%s", err_name(e));
    const struct catalog_template *t = snapshot_template_by_id(snapshot, r.template_id);
    int64_t third_s = (r.not_after_s - r.not_before_s) / 3;
    window_pick(&r, t ? template_settings(t->compiled)->renew_before_s : third_s, &start_s, &end_s);
    return reply(x, start_s, end_s);
}
