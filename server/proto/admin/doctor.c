/* GET /doctor: what only this replica knows goes to the registry's checks as arguments. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "enroll/catalog.h"
#include "enroll/service.h"
#include "pki/scep.h"
#include "proto/admin/hooks.h"
#include "store/migrate.h"

enum { MAX_CAS = 64, US_PER_S = 1000000 };

static json_t *issuers_json(const struct snapshot *s)
{
    json_t *names = json_array();
    const char *found[MAX_CAS];
    size_t count = snapshot_issuers(s, found, MAX_CAS);
    for (size_t i = 0; names && i < count; i++)
        (void)!json_array_append_new(names, json_string(found[i]));
    return names;
}

enum err doctor_before(struct service *service, struct exchange *x, json_t *args)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    catalog_expire(service->catalog);
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    const char *name = service->default_template;
    json_t *ra_ends =
        service->scep ? json_integer(scep_ra_not_after_s(service->scep)) : json_null();
    int rc =
        json_object_set_new(args, "clock", json_integer(clock_wall_s() * US_PER_S)) |
        json_object_set_new(args, "server_ends", json_integer(service->server_cert_ends_s)) |
        json_object_set_new(args, "ra_ends", ra_ends) |
        json_object_set_new(args, "needs", json_integer(migrations[migration_count - 1].version)) |
        json_object_set_new(args, "default_template", name ? json_string(name) : json_null()) |
        json_object_set_new(args, "issuers", issuers_json(snapshot));
    return rc ? fault_set(&x->fault, FAULT_INTERNAL, "out of memory") : ERR_OK;
}
