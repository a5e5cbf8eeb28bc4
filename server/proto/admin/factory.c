/* Batches, stations and journals of the factory, for operators. */
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "enroll/service.h"
#include "pki/cert.h"
#include "proto/admin/hooks.h"
#include "proto/units.h"

/* The certificate as the desk records it. */
static enum err station_args(struct exchange *x, json_t *args, struct bytes der,
                             const struct cert_info *info)
{
    int rc =
        admin_hex_add(x->arena, args, "der", der) |
        admin_hex_add(x->arena, args, "fingerprint", bytes_of(info->fingerprint, SHA256_BYTES)) |
        json_object_set_new(args, "subject", json_string(info->subject_text)) |
        json_object_set_new(args, "not_after", json_integer(info->not_after_s));
    (void)json_object_del(args, "certificate");
    return rc ? fault_set(&x->fault, FAULT_INTERNAL, "out of memory") : ERR_OK;
}

enum err station_create_before(struct service *service, struct exchange *x, json_t *args)
{
    _cleanup_(cert_freep) X509 *cert = NULL;
    const char *pem = json_string_value(json_object_get(args, "certificate"));
    struct cert_info info;
    struct bytes der;
    (void)service;
    if (cert_parse_first_pem(bytes_text(pem), &cert))
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                         "certificate is not one certificate in PEM");
    if (cert_encode(x->arena, cert, &der) || cert_describe(x->arena, cert, &info))
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                         "certificate is none that can be read");
    if (info.not_after_s <= clock_wall_s())
        return fault_set(&x->fault, FAULT_CERT_EXPIRED, "the certificate has ended");
    return station_args(x, args, der, &info);
}

static struct factory_job job_of(const struct exchange *x, const struct factory_scope *scope,
                                 const char *operation)
{
    const struct admin_session *s = x->adapter;
    return (struct factory_job){.scope = scope,
                                .op = s->json,
                                .protocol = "admin",
                                .source = s->op.name,
                                .since_us = x->since_us,
                                .operation = operation};
}

enum err factory_certify_handle(struct service *service, struct exchange *x)
{
    const struct admin_session *s = x->adapter;
    struct factory_scope scope = {0};
    char message[DB_MAX_MESSAGE_BYTES] = "";
    enum err e = factory_by_batch(service->db, s->json, x->args[0], x->arena, &scope, message);
    if (e)
        return factory_refused(e, message, &x->fault);
    const struct factory_job job = job_of(x, &scope, "certify");
    return units_certify(service, x, &job, FACTORY_MAX_UNITS);
}

enum err factory_journal_handle(struct service *service, struct exchange *x)
{
    const struct admin_session *s = x->adapter;
    struct factory_scope scope = {0};
    char message[DB_MAX_MESSAGE_BYTES] = "";
    enum err e = factory_by_station(service->db, s->json, x->args[0], x->arena, &scope, message);
    if (e)
        return factory_refused(e, message, &x->fault);
    const struct factory_job job = job_of(x, &scope, "journal");
    return units_journal(service, x, &job);
}
