#include "proto/device/device.h"

#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json_out.h"
#include "enroll/catalog.h"
#include "enroll/pipeline.h"
#include "enroll/service.h"
#include "proto/device/enroll.h"
#include "proto/device/tpm.h"
#include "store/enrol.h"

enum { MAX_CONFIG_BYTES = 64 * 1024 };

/* The certificate must chain to a CA of ours, or to a registered one whose certificates are
 * devices' own. */
static enum err authenticate(struct service *service, struct exchange *x,
                             struct chain_verdict *verdict, bool *ret_registers)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    if (x->chain_count == 0)
        return fault_set(&x->fault, FAULT_AUTH_REQUIRED, "present the device's certificate in TLS");
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    enum err e = catalog_clock_check(service->catalog, service->max_clock_skew_s, &x->fault);
    if (!e)
        e = chain_verify(snapshot_trust(snapshot), x->arena, x->chain, x->chain_count,
                         clock_wall_s(), verdict, &x->fault);
    if (e)
        return e;
    const struct catalog_ca *ca = snapshot_ca(snapshot, verdict->anchor_id);
    *ret_registers =
        ca && (ca->kind == CATALOG_REGISTERED || catalog_ca_trusts(ca, clock_wall_s()));
    if (!ca || (ca->kind == CATALOG_REGISTERED && !ca->has_devices))
        return fault_set(&x->fault, FAULT_CERT_PURPOSE,
                         "a factory certificate has no configuration; enrol first");
    return ERR_OK;
}

/* The first contact of a certificate whose CA registers devices. */
static enum err admit(struct service *service, struct exchange *x)
{
    struct enrollment_request rq = {
        .flow = FLOW_ADMIT,
        .request_id = x->request_id,
        .since_us = x->since_us,
        .protocol = "config",
        .operation = "jitp",
        .source = x->source,
        .chain_count = x->chain_count,
        .gate = service->device_gate,
    };
    struct enrollment_result result;
    struct enrollment_report report;
    memcpy(rq.chain, x->chain, sizeof(rq.chain));
    enum err e = pipeline_run(service, &rq, x->arena, &result, &report, &x->fault);
    x->log_serial = report.serial;
    x->log_credential = report.credential;
    x->log_template = report.template;
    return e;
}

static enum err seen(struct service *service, struct exchange *x, struct bytes fingerprint,
                     struct enrol_seen *ret_seen)
{
    enum err e = enrol_seen_record(service->db, fingerprint, "config", x->request_id, x->source,
                                   x->arena, ret_seen);
    return e ? fault_set(&x->fault, e == ERR_UNAVAILABLE ? FAULT_DB_UNAVAILABLE : FAULT_INTERNAL,
                         "%s", err_name(e))
             : ERR_OK;
}

static enum err reply_config(struct exchange *x, const struct enrol_seen *seen)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_CONFIG_BYTES);
    json_begin_object(&b);
    json_text(&b, "serial", seen->serial);
    json_text(&b, "thing_name", seen->thing_name);
    json_text(&b, "state", seen->state);
    json_raw(&b, "configuration", seen->configuration);
    json_end_object(&b);
    buf_add_char(&b, '\n');
    return exchange_reply_buf(x, 200, "application/json", &b);
}

static enum err config_handle(struct service *service, struct exchange *x)
{
    struct chain_verdict verdict = {0};
    struct enrol_seen s = {0};
    bool registers = false;
    enum err e = authenticate(service, x, &verdict, &registers);
    if (e && x->fault.code == FAULT_CA_NOT_REGISTERED)
        return admit(service,
                     x); /* refuses likewise, and notes who asked for `muster ca unknown` */
    if (e)
        return e;
    x->log_credential = "device";
    struct bytes fp = bytes_of(verdict.leaf.fingerprint, SHA256_BYTES);
    e = seen(service, x, fp, &s);
    if (!e && registers && fault_parse(s.code) == FAULT_CERT_UNKNOWN) {
        e = admit(service, x);
        if (!e)
            e = seen(service, x, fp, &s);
    }
    if (e)
        return e;
    x->log_serial = s.serial;
    if (strcmp(s.code, "ok") != 0)
        return fault_set(&x->fault, fault_parse(s.code), "%s", s.detail ? s.detail : "");
    return reply_config(x, &s);
}

static const struct route enroll_rows[] = {
    {HTTP_POST, "/v1/enroll", "application/json", DEVICE_ENROLL_MAX_BODY_BYTES, 0,
     device_enroll_handle, NULL},
    {HTTP_POST, "/v1/tpm/challenge", "application/json", DEVICE_TPM_MAX_BODY_BYTES, 0,
     device_tpm_challenge_handle, NULL},
    {HTTP_POST, "/v1/tpm/enroll", "application/json", DEVICE_TPM_MAX_BODY_BYTES, 0,
     device_tpm_enroll_handle, NULL},
};

static const struct route config_rows[] = {
    {HTTP_GET, "/v1/device/config", NULL, 0, 0, config_handle, NULL},
};

const struct route_table device_enroll_routes = {
    .rows = enroll_rows, .count = ARRAY_LEN(enroll_rows), .protocol = PROTOCOL_JSON};
const struct route_table device_config_routes = {
    .rows = config_rows, .count = ARRAY_LEN(config_rows), .protocol = PROTOCOL_CONFIG};
