#include "proto/station/station.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "enroll/service.h"
#include "pki/cert.h"
#include "proto/units.h"

enum { MAX_UNITS = 100 };

static enum err certificate_read(struct exchange *x, struct cert_info *ret_info)
{
    _cleanup_(cert_freep) X509 *cert = NULL;
    if (x->chain_count == 0)
        return fault_set(&x->fault, FAULT_AUTH_REQUIRED,
                         "present the station's certificate in TLS");
    if (cert_decode(x->chain[0], &cert) || cert_describe(x->arena, cert, ret_info))
        return fault_set(&x->fault, FAULT_CHAIN_MALFORMED, "the station's certificate");
    return ERR_OK;
}

/* Pinned by its fingerprint, so nothing above it counts; but it ends when it says. */
static enum err scope_take(struct service *service, struct exchange *x, struct factory_scope *ret)
{
    struct cert_info info;
    char message[DB_MAX_MESSAGE_BYTES] = "";
    int64_t now_s = clock_wall_s();
    enum err e = certificate_read(x, &info);
    if (e)
        return e;
    x->log_credential = "station";
    e = factory_by_certificate(service->db, bytes_of(info.fingerprint, SHA256_BYTES), x->arena, ret,
                               message);
    if (e)
        return factory_refused(e, message, &x->fault);
    if (now_s < info.not_before_s || now_s >= info.not_after_s)
        return fault_set(&x->fault, FAULT_STATION_REVOKED,
                         "the certificate of %s is not valid at this time", info.subject_text);
    return ERR_OK;
}

static struct factory_job job_of(const struct exchange *x, const struct factory_scope *scope,
                                 const char *operation)
{
    const char *source = arena_printf(x->arena, "%s, station %s", x->source, scope->station);
    if (!source)
        source = x->source;
    return (struct factory_job){.scope = scope,
                                .protocol = "station",
                                .source = source,
                                .since_us = x->since_us,
                                .operation = operation};
}

static enum err certify_handle(struct service *service, struct exchange *x)
{
    struct factory_scope scope = {0};
    enum err e = scope_take(service, x, &scope);
    if (e)
        return e;
    const struct factory_job job = job_of(x, &scope, "certify");
    return units_certify(service, x, &job, MAX_UNITS);
}

static enum err journal_handle(struct service *service, struct exchange *x)
{
    struct factory_scope scope = {0};
    enum err e = scope_take(service, x, &scope);
    if (e)
        return e;
    const struct factory_job job = job_of(x, &scope, "journal");
    return units_journal(service, x, &job);
}

static const struct route rows[] = {
    {HTTP_POST, "/v1/factory/certificates", "application/x-ndjson", 1 << 20, 0, certify_handle,
     NULL},
    {HTTP_POST, "/v1/factory/journal", "application/x-ndjson", UNITS_MAX_BODY_BYTES, 0,
     journal_handle, NULL},
};

const struct route_table station_routes = {
    .rows = rows, .count = ARRAY_LEN(rows), .protocol = PROTOCOL_STATION};
