#include "proto/device/enroll.h"

#include <jansson.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json_out.h"
#include "enroll/catalog.h"
#include "enroll/pipeline.h"
#include "pki/cert.h"
#include "proto/auth.h"

enum { MAX_ANSWER_BYTES = 256 * 1024, MAX_TEXT_BYTES = 256, MAX_CHAIN = 8 };

/* What the body says. The texts are borrowed from the JSON. */
struct body {
    const char *csr;
    const char *serial;   /* NULL: not said */
    const char *template; /* NULL: not said */
};

static enum err malformed(struct exchange *x, const char *what)
{
    return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%.80s", what);
}

static enum err body_read(struct exchange *x, json_t *json, struct body *ret_body)
{
    struct body b = {0};
    const struct {
        const char *name;
        const char **text;
        size_t max;
    } members[] = {{"csr", &b.csr, DEVICE_ENROLL_MAX_BODY_BYTES},
                   {"serial", &b.serial, MAX_TEXT_BYTES},
                   {"template", &b.template, MAX_TEXT_BYTES}};
    const char *key;
    json_t *value;
    if (!json_is_object(json))
        return malformed(x, "the body must be a JSON object");
    json_object_foreach(json, key, value)
    {
        size_t i = 0;
        while (i < ARRAY_LEN(members) && strcmp(members[i].name, key) != 0)
            i++;
        if (i == ARRAY_LEN(members))
            return malformed(x, "a member that is not csr, serial or template");
        if (!json_is_string(value) || json_string_length(value) > members[i].max)
            return malformed(x, "a member that is no string, or too long");
        *members[i].text = json_string_value(value);
    }
    if (!b.csr)
        return malformed(x, "csr is missing");
    *ret_body = b;
    return ERR_OK;
}

static enum err request_fill(struct service *service, struct exchange *x, const struct body *b,
                             struct enrollment_request *rq)
{
    const char *header = exchange_header(x, "Authorization");
    struct device_auth auth = {0};
    enum err e = header ? auth_parse(x->arena, header, &auth, &x->fault) : ERR_OK;
    if (e)
        return e;
    if (auth.serial && b->serial && strcmp(auth.serial, b->serial) != 0)
        return malformed(x, "the body and the Authorization header name different serials");
    *rq = (struct enrollment_request){
        .request_id = x->request_id,
        .since_us = x->since_us,
        .protocol = "json",
        .operation = "enroll",
        .source = x->source,
        .template_name = b->template,
        .claimed_serial = auth.serial ? auth.serial : b->serial,
        .token = auth.token,
        .chain_count = x->chain_count,
        .psk_identity = x->psk_identity,
        .channel_binding = x->channel_binding,
        .gate = service->device_gate,
        .csr = bytes_text(b->csr),
    };
    memcpy(rq->chain, x->chain, sizeof(rq->chain));
    return ERR_OK;
}

/* The CAs above the certificate, nearest first. */
static enum err chain_write(struct service *service, struct exchange *x, struct bytes der,
                            struct buf *b)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    struct bytes cas[MAX_CHAIN], issuer = {0};
    enum err e = catalog_get(service->catalog, &snapshot);
    if (!e)
        e = cert_issuer_der(der, &issuer);
    if (e)
        return e;
    size_t count = snapshot_chain(snapshot, issuer, cas, MAX_CHAIN);
    json_key(b, "chain");
    json_begin_array(b);
    for (size_t i = 0; i < count; i++)
        json_item_text(b, cert_pem(x->arena, cas[i]));
    json_end_array(b);
    return ERR_OK;
}

enum err device_enroll_answer(struct service *service, struct exchange *x,
                              const struct enrollment_result *r)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_ANSWER_BYTES);
    json_begin_object(&b);
    json_text(&b, "serial", r->serial);
    json_text(&b, "thing_name", r->thing_name);
    json_text(&b, "state", r->state);
    json_bool(&b, "replayed", r->replayed);
    json_text(&b, "certificate", cert_pem(x->arena, r->certificate));
    enum err e = chain_write(service, x, r->certificate, &b);
    if (e)
        return e;
    json_raw(&b, "configuration", r->configuration);
    json_end_object(&b);
    buf_add_char(&b, '\n');
    return exchange_reply_buf(x, 200, "application/json", &b);
}

static enum err enroll(struct service *service, struct exchange *x, const struct body *b)
{
    struct enrollment_request rq;
    struct enrollment_result result;
    struct enrollment_report report;
    if (request_fill(service, x, b, &rq))
        return auth_refuse(x, false);
    enum err e = pipeline_run(service, &rq, x->arena, &result, &report, &x->fault);
    x->log_serial = report.serial;
    x->log_credential = report.credential;
    x->log_template = report.template;
    return e ? auth_refuse(x, report.proven) : device_enroll_answer(service, x, &result);
}

enum err device_enroll_handle(struct service *service, struct exchange *x)
{
    struct body b = {0};
    json_t *json =
        json_loadb((const char *)x->body.data, x->body.len, JSON_REJECT_DUPLICATES, NULL);
    enum err e = body_read(x, json, &b);
    if (!e)
        e = enroll(service, x, &b);
    json_decref(json);
    return e;
}
