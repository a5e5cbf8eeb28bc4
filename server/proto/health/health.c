#include "proto/health/health.h"

#include "base/cleanup.h"
#include "enroll/catalog.h"
#include "enroll/journal.h"
#include "enroll/service.h"
#include "store/catalog_load.h"

static enum err healthz_handle(struct service *service, struct exchange *x)
{
    (void)service;
    exchange_reply(x, 200, "text/plain", bytes_text("ok\n"));
    return ERR_OK;
}

static enum err readyz_handle(struct service *service, struct exchange *x)
{
    int64_t epoch = 0, wall_us = 0;
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    if (atomic_load(&service->draining))
        return fault_set(&x->fault, FAULT_DRAINING, "SIGTERM was received");
    if (catalog_epoch(service->db, &epoch, &wall_us) || catalog_get(service->catalog, &snapshot))
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "PostgreSQL does not answer");
    if (!snapshot_issuer(snapshot, NULL))
        return fault_set(&x->fault, FAULT_CA_NO_ISSUER, "musterd init makes one");
    enum err e = catalog_clock_check(service->catalog, service->max_clock_skew_s, &x->fault);
    if (!e)
        e = journal_check(service->journal, &x->fault);
    if (e)
        return e;
    exchange_reply(x, 200, "text/plain", bytes_text("ready\n"));
    return ERR_OK;
}

static const struct route routes[] = {
    {HTTP_GET, "/healthz", NULL, 0, 0, healthz_handle, NULL},
    {HTTP_GET, "/readyz", NULL, 0, 0, readyz_handle, NULL},
};

const struct route_table health_routes = {
    .rows = routes, .count = ARRAY_LEN(routes), .protocol = PROTOCOL_HEALTH};
