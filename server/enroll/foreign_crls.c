#include "enroll/foreign_crls.h"

#include "base/cleanup.h"
#include "base/json_out.h"
#include "base/log.h"
#include "enroll/catalog.h"
#include "enroll/service.h"
#include "pki/cert.h"
#include "store/foreign_crl.h"

enum { ARENA_BYTES = 256 << 20 };

static const struct revoked *row_of(const struct crl_info *crl, struct bytes number)
{
    for (size_t i = 0; i < crl->count; i++) {
        if (bytes_equal(crl->rows[i].serial_number, number))
            return &crl->rows[i];
    }
    return NULL;
}

/* A serial number says nothing without its issuer. */
static enum err one_apply(struct service *service, X509 *ca, const struct crl_info *crl,
                          const struct foreign_cert *c, struct arena *arena, size_t *revoked)
{
    _cleanup_(cert_freep) X509 *x = NULL;
    struct cert_info info;
    bool now = false;
    enum err e = cert_decode(c->der, &x);
    if (!e)
        e = cert_describe(arena, x, &info);
    if (e || !cert_signed_by(x, ca))
        return e;
    const struct revoked *row = row_of(crl, info.serial_number);
    if (row)
        e = foreign_revoke(service->db, c->id, revocation_reason_name(row->reason), &now);
    *revoked += now;
    return e;
}

enum err foreign_crls_apply(struct service *service, struct bytes ca_der,
                            const struct crl_info *crl, struct arena *arena, size_t *ret_revoked)
{
    _cleanup_(cert_freep) X509 *ca = NULL;
    struct foreign_cert *certs = NULL;
    size_t count = 0;
    struct bytes *numbers = arena_alloc(arena, (crl->count + 1) * sizeof(*numbers));
    enum err e = numbers ? cert_decode(ca_der, &ca) : ERR_NO_MEMORY;
    for (size_t i = 0; i < crl->count && !e; i++)
        numbers[i] = crl->rows[i].serial_number;
    if (!e)
        e = foreign_listed(service->db, arena, numbers, crl->count, &certs, &count);
    *ret_revoked = 0;
    for (size_t i = 0; i < count && !e; i++)
        e = one_apply(service, ca, crl, &certs[i], arena, ret_revoked);
    return e;
}

static void failed_log(const char *ca, enum err e)
{
    struct buf b;
    log_begin(&b, LOG_WARN, "jobs.foreign_crls_failed");
    if (ca)
        json_text(&b, "ca", ca);
    json_text(&b, "error", err_name(e));
    log_end(&b, LOG_WARN);
}

/* Each in an arena of its own, and whatever becomes of it: the next CA's is not kept by it. */
static void recent_apply(struct service *service, const struct foreign_crl *f)
{
    _cleanup_(arena_donep) struct arena arena;
    struct crl_info crl;
    const char *why = NULL;
    size_t revoked = 0;
    arena_init(&arena, ARENA_BYTES);
    enum err e = crl_read(f->der, &arena, &crl, &why);
    if (!e)
        e = foreign_crls_apply(service, f->ca_der, &crl, &arena, &revoked);
    if (e)
        failed_log(f->ca, e);
}

void foreign_crls_run(struct service *service)
{
    _cleanup_(arena_donep) struct arena arena;
    struct foreign_crl *crls = NULL;
    size_t count = 0;
    int moved = 0;
    arena_init(&arena, ARENA_BYTES);
    enum err e = foreign_close(service->db, &moved);
    if (moved > 0)
        catalog_expire(service->catalog);
    if (!e)
        e = foreign_recent(service->db, &arena, &crls, &count);
    for (size_t i = 0; i < count && !e; i++)
        recent_apply(service, &crls[i]);
    if (e)
        failed_log(NULL, e);
}
