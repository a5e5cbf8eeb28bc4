#include "proto/est/est.h"

#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "enroll/pipeline.h"
#include "pki/cert.h"
#include "pki/csrattrs.h"
#include "proto/auth.h"
#include "proto/est/internal.h"

enum { MAX_CAS = 48, EST_GATED = 1 /* asks the database: waits its turn */ };

enum err est_answer(struct exchange *x, const char *type, struct bytes der)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, EST_MAX_ANSWER_BYTES);
    base64_encode(&b, der);
    buf_add_char(&b, '\n');
    exchange_add_header(x, "Content-Transfer-Encoding", "base64");
    return exchange_reply_buf(x, 200, type, &b);
}

/* RFC 7030 4.1: the CAs that certificates of ours chain to; no authentication. */
static enum err cacerts_handle(struct service *service, struct exchange *x)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    if (x->args[0] && !snapshot_template(snapshot, x->args[0]))
        return fault_set(&x->fault, FAULT_TEMPLATE_UNKNOWN, "no enabled template \"%.80s\"",
                         x->args[0]);
    struct bytes cas[MAX_CAS];
    size_t count = snapshot_own_cas(snapshot, cas, MAX_CAS);
    if (count == 0)
        return fault_set(&x->fault, FAULT_CA_NO_ISSUER, "the registry has no CA of its own");
    struct bytes cms;
    enum err e = cms_certs_only(x->arena, cas, count, &cms);
    return e ? e : est_answer(x, "application/pkcs7-mime", cms);
}

enum err est_template(struct service *service, struct exchange *x, struct snapshot *snapshot,
                      const struct catalog_template **ret_template)
{
    const char *name = x->args[0] ? x->args[0] : service->default_template;
    if (!name)
        return fault_set(&x->fault, FAULT_TEMPLATE_NO_DEFAULT,
                         "no label, and default_template is not set");
    const struct catalog_template *t = snapshot_template(snapshot, name);
    if (!t)
        return fault_set(&x->fault, FAULT_TEMPLATE_UNKNOWN, "no enabled template \"%.80s\"", name);
    *ret_template = t;
    return ERR_OK;
}

/* RFC 7030 4.5: what the template wants in a request; no authentication. */
static enum err csrattrs_handle(struct service *service, struct exchange *x)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    const struct catalog_template *t = NULL;
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    enum err e = est_template(service, x, snapshot, &t);
    if (e)
        return e;
    const struct template_settings *settings = template_settings(t->compiled);
    const struct csrattrs_request rq = {
        .keys = settings->keys,
        .eku = template_renewal_profile(t->compiled)->eku,
        .pop = settings->pop_required,
        .serial = settings->serial == SERIAL_FROM_CN              ? CSRATTRS_CN
                  : settings->serial == SERIAL_FROM_SERIAL_NUMBER ? CSRATTRS_SERIAL_NUMBER
                                                                  : CSRATTRS_SAN,
    };
    struct bytes der;
    e = csrattrs_encode(x->arena, &rq, &der);
    return e ? e : est_answer(x, "application/csrattrs", der);
}

static enum err request_fill(struct service *service, struct exchange *x,
                             enum est_operation operation, struct enrollment_request *rq)
{
    static const char *const names[] = {"simpleenroll", "simplereenroll", "serverkeygen"};
    bool renew = operation == EST_REENROLL;
    *rq = (struct enrollment_request){
        .request_id = x->request_id,
        .since_us = x->since_us,
        .protocol = "est",
        .operation = names[operation],
        .source = x->source,
        .template_name = x->args[0],
        .renew = renew,
        .server_key = operation == EST_SERVERKEYGEN,
        .chain_count = x->chain_count,
        .psk_identity = x->psk_identity,
        .channel_binding = x->channel_binding,
        .gate = service->device_gate,
        .csr = x->body,
    };
    memcpy(rq->chain, x->chain, sizeof(rq->chain));
    const char *header = exchange_header(x, "Authorization");
    struct device_auth auth = {0};
    if (!header || renew)
        return ERR_OK;
    enum err e = auth_parse(x->arena, header, &auth, &x->fault);
    rq->claimed_serial = auth.serial;
    rq->token = auth.token;
    return e;
}

enum err est_enrol(struct service *service, struct exchange *x, enum est_operation operation,
                   struct enrollment_result *ret_result)
{
    struct enrollment_request rq;
    struct enrollment_report report;
    if (request_fill(service, x, operation, &rq))
        return auth_refuse(x, false);
    enum err e = pipeline_run(service, &rq, x->arena, ret_result, &report, &x->fault);
    x->log_serial = report.serial;
    x->log_credential = report.credential;
    x->log_template = report.template;
    return e ? auth_refuse(x, report.proven) : ERR_OK;
}

static enum err enrol_and_answer(struct service *service, struct exchange *x,
                                 enum est_operation operation)
{
    struct enrollment_result result;
    struct bytes cms;
    enum err e = est_enrol(service, x, operation, &result);
    if (!e)
        e = cms_certs_only(x->arena, &result.certificate, 1, &cms);
    return e ? e : est_answer(x, "application/pkcs7-mime; smime-type=certs-only", cms);
}

/* RFC 7030 4.2.1 */
static enum err simpleenroll_handle(struct service *service, struct exchange *x)
{
    return enrol_and_answer(service, x, EST_ENROLL);
}

/* RFC 7030 4.2.2 */
static enum err simplereenroll_handle(struct service *service, struct exchange *x)
{
    return enrol_and_answer(service, x, EST_REENROLL);
}

/* RFC 7030 4.3: optional, and not for devices of this kind. */
static enum err fullcmc_handle(struct service *service, struct exchange *x)
{
    (void)service;
    return fault_set(&x->fault, FAULT_NOT_IMPLEMENTED, "full CMC (RFC 7030 4.3)");
}

static const struct route routes[] = {
    {HTTP_GET, "/.well-known/est/cacerts", NULL, 0, 0, cacerts_handle, NULL},
    {HTTP_GET, "/.well-known/est/{}/cacerts", NULL, 0, 0, cacerts_handle, NULL},
    {HTTP_GET, "/.well-known/est/csrattrs", NULL, 0, 0, csrattrs_handle, NULL},
    {HTTP_GET, "/.well-known/est/{}/csrattrs", NULL, 0, 0, csrattrs_handle, NULL},
    {HTTP_POST, "/.well-known/est/simpleenroll", "application/pkcs10", EST_MAX_BODY_BYTES, 0,
     simpleenroll_handle, NULL},
    {HTTP_POST, "/.well-known/est/{}/simpleenroll", "application/pkcs10", EST_MAX_BODY_BYTES, 0,
     simpleenroll_handle, NULL},
    {HTTP_POST, "/.well-known/est/simplereenroll", "application/pkcs10", EST_MAX_BODY_BYTES, 0,
     simplereenroll_handle, NULL},
    {HTTP_POST, "/.well-known/est/{}/simplereenroll", "application/pkcs10", EST_MAX_BODY_BYTES, 0,
     simplereenroll_handle, NULL},
    {HTTP_POST, "/.well-known/est/serverkeygen", "application/pkcs10", EST_MAX_BODY_BYTES, 0,
     est_serverkeygen_handle, NULL},
    {HTTP_POST, "/.well-known/est/{}/serverkeygen", "application/pkcs10", EST_MAX_BODY_BYTES, 0,
     est_serverkeygen_handle, NULL},
    {HTTP_GET, "/.well-known/est/renewal-info/{}", NULL, 0, EST_GATED, est_renewal_info_handle,
     NULL},
    {HTTP_GET, "/.well-known/est/{}/renewal-info/{}", NULL, 0, EST_GATED, est_renewal_info_handle,
     NULL},
    {HTTP_POST, "/.well-known/est/fullcmc", NULL, EST_MAX_BODY_BYTES, 0, fullcmc_handle, NULL},
    {HTTP_POST, "/.well-known/est/{}/fullcmc", NULL, EST_MAX_BODY_BYTES, 0, fullcmc_handle, NULL},
};

const struct route_table est_routes = {
    .rows = routes, .count = ARRAY_LEN(routes), .protocol = PROTOCOL_EST};
