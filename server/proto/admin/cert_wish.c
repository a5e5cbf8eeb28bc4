#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "enroll/catalog.h"
#include "enroll/pipeline.h"
#include "enroll/service.h"
#include "enroll/template.h"
#include "pki/chain.h"
#include "proto/admin/certs.h"
#include "proto/admin/hooks.h"

static enum err malformed(struct fault *fault, const char *what)
{
    return fault_set(fault, FAULT_REQUEST_MALFORMED, "%s", what);
}

enum err cert_wish_parameters(struct cert_wish *w, json_t *object, struct fault *fault)
{
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        const char *text = json_string_value(value);
        if (!text || strlen(text) != json_string_length(value) ||
            strlen(text) > TEMPLATE_MAX_VALUE_BYTES)
            return malformed(fault, "a parameter is no string, or too long");
        if (strchr(name, ':'))
            return malformed(fault, "a parameter's name has a colon: the server says those itself");
        if (w->parameter_count == ENROLLMENT_MAX_PARAMETERS)
            return malformed(fault, "too many parameters");
        w->parameters[w->parameter_count++] = (struct enrollment_parameter){name, text};
    }
    return ERR_OK;
}

static enum err chain_take(struct arena *arena, const char *pem, struct cert_wish *w)
{
    X509 *certs[ENROLLMENT_MAX_CHAIN] = {0};
    enum err e = cert_parse_pem(bytes_text(pem), certs, ENROLLMENT_MAX_CHAIN, &w->chain_count);
    for (size_t i = 0; i < w->chain_count && !e; i++)
        e = cert_encode(arena, certs[i], &w->chain[i]);
    for (size_t i = 0; i < ENROLLMENT_MAX_CHAIN; i++)
        cert_free(certs[i]);
    return e;
}

static enum err ca_find(struct service *service, struct arena *arena, struct cert_wish *w,
                        struct fault *fault)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    struct chain_verdict verdict = {0};
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    enum err e = chain_verify(snapshot_trust(snapshot), arena, w->chain, w->chain_count,
                              clock_wall_s(), &verdict, fault);
    if (e)
        return e;
    const struct catalog_ca *ca = snapshot_ca(snapshot, verdict.anchor_id);
    if (!ca || ca->kind != CATALOG_REGISTERED)
        return fault_set(fault, FAULT_CERT_PURPOSE,
                         "a CA of ours signed it; only those of "
                         "registered CAs are registered");
    w->leaf = verdict.leaf;
    w->ca_id = ca->id;
    w->ca = arena_strdup(arena, ca->name);
    return w->ca ? ERR_OK : fault_set(fault, FAULT_INTERNAL, "out of memory");
}

enum err cert_wish_pem(struct service *service, struct arena *arena, const char *pem,
                       struct cert_wish *w, struct fault *fault)
{
    if (chain_take(arena, pem, w))
        return malformed(fault, "the certificate is no PEM that can be read");
    return ca_find(service, arena, w, fault);
}

enum err cert_wish_provision(struct service *service, struct exchange *x, const struct cert_wish *w,
                             struct enrollment_result *ret_result, struct fault *fault)
{
    const struct admin_session *s = x->adapter;
    struct enrollment_report report;
    struct enrollment_request rq = {
        .flow = FLOW_ADMIT,
        .request_id = x->request_id,
        .since_us = x->since_us,
        .protocol = "admin",
        .operation = w->operation,
        .source = s->op.name,
        .template_name = w->template,
        .chain_count = w->chain_count,
        .vouch = w->vouch,
        .parameter_count = w->parameter_count,
    };
    memcpy(rq.chain, w->chain, sizeof(rq.chain));
    memcpy(rq.parameters, w->parameters, sizeof(rq.parameters));
    return pipeline_run(service, &rq, x->arena, ret_result, &report, fault);
}

/* What the desk is told of it. NULL: out of memory. */
static json_t *desk_args(struct exchange *x, const struct cert_wish *w)
{
    json_t *args = json_pack("{s:s, s:I, s:s*, s:I, s:I, s:{}}", "subject", w->leaf.subject_text,
                             "ca_id", (json_int_t)w->ca_id, "template", w->template, "not_before",
                             (json_int_t)w->leaf.not_before_s, "not_after",
                             (json_int_t)w->leaf.not_after_s, "parameters");
    int rc = args ? 0 : -1;
    if (!rc)
        rc = admin_hex_add(x->arena, args, "fingerprint",
                           bytes_of(w->leaf.fingerprint, SHA256_BYTES)) |
             admin_hex_add(x->arena, args, "spki", bytes_of(w->leaf.spki_sha256, SHA256_BYTES)) |
             admin_hex_add(x->arena, args, "serial_number", w->leaf.serial_number) |
             admin_hex_add(x->arena, args, "certificate", w->chain[0]);
    for (size_t i = 0; i < w->parameter_count && !rc; i++)
        rc = json_object_set_new(json_object_get(args, "parameters"), w->parameters[i].name,
                                 json_string(w->parameters[i].value));
    if (!rc)
        return args;
    json_decref(args);
    return NULL;
}

/* Whose fault is the caller's: a line of an import's, or the exchange's. */
static enum err desk_ask(struct service *service, struct exchange *x, enum desk_call call,
                         const json_t *args, const char **ret_json, struct fault *fault)
{
    struct desk_answer answer = {0};
    struct fault kept = x->fault;
    enum err e = admin_ask(service, x, call, args, &answer);
    *ret_json = answer.json;
    if (!e)
        return ERR_OK;
    *fault = x->fault;
    if (fault != &x->fault)
        x->fault = kept;
    return e;
}

enum err cert_wish_begin(struct service *service, struct exchange *x, const struct cert_wish *w,
                         struct fault *fault)
{
    _cleanup_(json_decrefp) json_t *args = desk_args(x, w);
    const char *json;
    return args ? desk_ask(service, x, DESK_CERT_REGISTER_BEGIN, args, &json, fault)
                : fault_set(fault, FAULT_INTERNAL, "out of memory");
}

enum err cert_wish_record(struct service *service, struct exchange *x, const struct cert_wish *w,
                          const char *status, const char **ret_json, struct fault *fault)
{
    _cleanup_(json_decrefp) json_t *args = desk_args(x, w);
    if (!args || json_object_set_new(args, "status", json_string(status)))
        return fault_set(fault, FAULT_INTERNAL, "out of memory");
    return desk_ask(service, x, DESK_CERT_REGISTER, args, ret_json, fault);
}
