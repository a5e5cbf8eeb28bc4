#include "proto/fleet/fleet.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "enroll/pipeline.h"
#include "enroll/template.h"
#include "pki/cert.h"
#include "proto/fleet/payload.h"

enum {
    MAX_CSR_CHARS = 8192,
    MAX_TOKEN_CHARS = 512,
    MAX_NAME_CHARS = 128,
    MAX_CLIENT_CHARS = 128,
};

/* Where a call ended that is refused. */
struct refusal {
    const struct fleet_operation *op;
    const char *request_id;
    const char *step;
    struct arena *arena;
    bool problem; /* the members of RFC 9457 as well */
};

/* One member as text. NULL where it is not there; a fault where it is something else. */
static enum err text_take(const struct fleet_call *call, const json_t *object, const char *name,
                          size_t max, const char **ret_text, struct fault *fault)
{
    const json_t *value = json_object_get(object, name);
    if (!value || json_is_null(value))
        return ERR_OK;
    if (!json_is_string(value) || json_string_length(value) > max)
        return fault_set(fault, FAULT_REQUEST_MALFORMED,
                         "%s must be a text of at most %zu characters", name, max);
    *ret_text = arena_strdup(call->arena, json_string_value(value));
    return *ret_text ? ERR_OK : fault_set(fault, FAULT_INTERNAL, "out of memory");
}

static enum err parameter_take(const struct fleet_call *call, const char *name, const json_t *value,
                               struct enrollment_request *rq, struct fault *fault)
{
    if (rq->parameter_count == ENROLLMENT_MAX_PARAMETERS)
        return fault_set(fault, FAULT_REQUEST_MALFORMED, "more than %d parameters",
                         ENROLLMENT_MAX_PARAMETERS);
    if (!json_is_string(value) || json_string_length(value) > TEMPLATE_MAX_VALUE_BYTES ||
        name[0] == '\0' || strlen(name) > MAX_NAME_CHARS)
        return fault_set(fault, FAULT_REQUEST_MALFORMED,
                         "parameter \"%.80s\" must be a text of at most %d characters", name,
                         TEMPLATE_MAX_VALUE_BYTES);
    struct enrollment_parameter p = {arena_strdup(call->arena, name),
                                     arena_strdup(call->arena, json_string_value(value))};
    if (!p.name || !p.value)
        return fault_set(fault, FAULT_INTERNAL, "out of memory");
    rq->parameters[rq->parameter_count++] = p;
    return ERR_OK;
}

static enum err parameters_take(const struct fleet_call *call, json_t *object,
                                struct enrollment_request *rq, struct fault *fault)
{
    const char *name;
    json_t *value, *parameters = json_object_get(object, "parameters");
    if (!parameters || json_is_null(parameters))
        return ERR_OK;
    if (!json_is_object(parameters))
        return fault_set(fault, FAULT_REQUEST_MALFORMED, "parameters must be an object of texts");
    json_object_foreach(parameters, name, value)
    {
        enum err e = parameter_take(call, name, value, rq, fault);
        if (e)
            return e;
    }
    return ERR_OK;
}

/* Members that the operation does not know are passed over: old SDKs send some (templateName). */
static enum err request_read(const struct fleet_operation *op, const struct fleet_call *call,
                             json_t *object, struct enrollment_request *rq, struct fault *fault)
{
    const char *csr = NULL;
    enum err e = ERR_OK;
    if (!rq->client_id)
        e = text_take(call, object, "clientId", MAX_CLIENT_CHARS, &rq->client_id, fault);
    if (e)
        return e;
    if (op->flow == FLOW_REGISTER) {
        e = text_take(call, object, "certificateOwnershipToken", MAX_TOKEN_CHARS,
                      &rq->ownership_token, fault);
        return e ? e : parameters_take(call, object, rq, fault);
    }
    if (op->make_key)
        return ERR_OK;
    e = text_take(call, object, "certificateSigningRequest", MAX_CSR_CHARS, &csr, fault);
    if (!e && (!csr || csr[0] == '\0'))
        e = fault_set(fault, FAULT_CSR_MALFORMED, "certificateSigningRequest is missing");
    rq->csr = bytes_text(csr);
    return e;
}

static const char *operation_name(const struct fleet_operation *op)
{
    if (op->flow == FLOW_REGISTER)
        return "RegisterThing";
    return op->make_key ? "CreateKeysAndCertificate" : "CreateCertificateFromCsr";
}

static void request_begin(const struct fleet_operation *op, const struct fleet_call *call,
                          struct enrollment_request *rq)
{
    *rq = (struct enrollment_request){
        .flow = op->flow,
        .request_id = call->request_id,
        .since_us = call->since_us,
        .protocol = call->transport,
        .operation = operation_name(op),
        .source = call->source,
        .template_name = op->flow == FLOW_REGISTER ? op->template_name : NULL,
        .server_key = op->make_key,
        .chain_count = call->chain_count,
        .claim = call->claim,
        .client_id = call->client_id,
        .gate = call->gate,
    };
    memcpy(rq->chain, call->chain, sizeof(rq->chain));
}

static int text_set(json_t *object, const char *name, const char *value)
{
    json_t *text = value ? json_string(value) : NULL;
    return text ? json_object_set_new(object, name, text) : -1;
}

/* Both must be there whatever the template makes: clients read them without looking. */
static int registered_fill(json_t *object, const struct enrollment_result *r)
{
    json_t *configuration = json_loads(r->configuration ? r->configuration : "{}", 0, NULL);
    int rc = configuration ? json_object_set_new(object, "deviceConfiguration", configuration) : -1;
    return rc | text_set(object, "thingName", r->thing_name ? r->thing_name : r->serial);
}

/* The leaf alone: the buffers of devices are small. */
static int created_fill(const struct fleet_call *call, json_t *object,
                        const struct enrollment_result *r)
{
    int rc = text_set(object, "certificateId", r->certificate_id) |
             text_set(object, "certificatePem", cert_pem(call->arena, r->certificate));
    if (r->private_key.len > 0)
        rc |= text_set(object, "privateKey", pem_text(call->arena, "PRIVATE KEY", r->private_key));
    return rc | text_set(object, "certificateOwnershipToken", r->ownership_token);
}

static enum err accepted_encode(const struct fleet_operation *op, const struct fleet_call *call,
                                const struct enrollment_result *r, struct fleet_reply *reply)
{
    json_t *object = json_object();
    int rc = object ? 0 : -1;
    if (object && op->flow == FLOW_REGISTER)
        rc = registered_fill(object, r);
    else if (object)
        rc = created_fill(call, object, r);
    enum err e =
        rc ? ERR_NO_MEMORY : payload_encode(op->format, object, call->arena, &reply->payload);
    json_decref(object);
    return e;
}

/* The word AWS has for it, or one like it where AWS tells none. */
static const char *error_code(enum fault_code code, int status)
{
    static const struct {
        int status;
        const char *word;
    } words[] = {{202, "ApprovalPending"},  {400, "InvalidParameters"}, {403, "AccessDenied"},
                 {404, "ResourceNotFound"}, {409, "ResourceConflict"},  {413, "InvalidPayload"},
                 {429, "Throttled"},        {503, "ServiceUnavailable"}};
    if (code == FAULT_OWNERSHIP_INVALID)
        return "InvalidCertificateOwnershipToken";
    if (code == FAULT_CSR_MALFORMED || code == FAULT_CSR_SIGNATURE || code == FAULT_CSR_KEY)
        return "InvalidCsr";
    if (code == FAULT_REQUEST_MALFORMED)
        return "InvalidPayload";
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (words[i].status == status)
            return words[i].word;
    }
    return "InternalFailure";
}

/* What a rejection says, before it is written. */
struct rejection {
    const struct fault_row *row;
    const char *word;
    const char *message;
    const char *detail; /* NULL: not told */
};

/* All three members, always: clients read them without looking. Over HTTPS they stand beside those
 * of every other refusal (RFC 9457). */
static json_t *rejection_json(const struct rejection *r, const char *problem_of)
{
    json_t *object = json_pack("{s:i, s:s, s:s}", "statusCode", r->row->http_status, "errorCode",
                               r->word, "errorMessage", r->message);
    if (!object || !problem_of)
        return object;
    int rc =
        json_object_set_new(object, "type", json_sprintf("urn:muster:error:%s", r->row->code)) |
        text_set(object, "title", r->row->title) |
        json_object_set_new(object, "status", json_integer(r->row->http_status)) |
        text_set(object, "code", r->row->code) | text_set(object, "request_id", problem_of);
    if (r->detail)
        rc |= text_set(object, "detail", r->detail);
    if (!rc)
        return object;
    json_decref(object);
    return NULL;
}

/* Details may quote bytes that are no text; then they stay in the trail. */
static struct rejection rejection_of(const struct refusal *f, struct fleet_reply *reply)
{
    const struct fault *fault = &reply->fault;
    enum fault_code seen = fault_public(fault->code, false);
    struct rejection r = {.row = fault_row(seen)};
    bool told = seen == fault->code && seen != FAULT_INTERNAL && fault->detail[0] != '\0' &&
                text_is_printable_utf8(fault->detail);
    r.word = error_code(seen, r.row->http_status);
    r.detail = told ? fault->detail : NULL;
    r.message =
        arena_printf(f->arena, "%s at %s: %s%s%s (request %s)", r.row->code, f->step, r.row->title,
                     told ? ": " : "", told ? fault->detail : "", f->request_id);
    if (!r.message)
        r.message = r.row->title;
    return r;
}

static void refuse(const struct refusal *f, const struct fault *fault, struct fleet_reply *reply)
{
    reply->accepted = false;
    reply->fault = *fault;
    struct rejection r = rejection_of(f, reply);
    reply->retry_after_s = exchange_retry_s(fault, r.row);
    reply->status = r.row->http_status;
    json_t *object = rejection_json(&r, f->problem ? f->request_id : NULL);
    if (!object || payload_encode(f->op->format, object, f->arena, &reply->payload))
        reply->payload = bytes_of(NULL, 0);
    json_decref(object);
}

void fleet_refuse(const struct fleet_operation *op, const char *request_id, struct arena *arena,
                  struct fault *fault, struct fleet_reply *ret_reply)
{
    const struct refusal f = {op, request_id, "admission", arena, false};
    *ret_reply = (struct fleet_reply){.credential = "none"};
    refuse(&f, fault, ret_reply);
}

static enum err run(struct service *service, const struct fleet_operation *op,
                    const struct fleet_call *call, struct enrollment_report *report,
                    struct fleet_reply *reply)
{
    struct enrollment_request rq;
    struct enrollment_result result;
    json_t *object = NULL;
    request_begin(op, call, &rq);
    enum err e = payload_decode(op->format, call->payload, &object, &reply->fault);
    if (!e)
        e = request_read(op, call, object, &rq, &reply->fault);
    json_decref(object);
    if (!e)
        e = pipeline_run(service, &rq, call->arena, &result, report, &reply->fault);
    if (!e)
        e = accepted_encode(op, call, &result, reply);
    if (e && reply->fault.code == FAULT_NONE)
        (void)fault_set(&reply->fault, FAULT_INTERNAL, "answering: %s", err_name(e));
    return e;
}

void fleet_run(struct service *service, const struct fleet_operation *op,
               const struct fleet_call *call, struct fleet_reply *ret_reply)
{
    struct enrollment_report report = {.credential = "none", .step = "payload"};
    *ret_reply = (struct fleet_reply){.accepted = true, .status = 200};
    if (run(service, op, call, &report, ret_reply)) {
        struct fault fault = ret_reply->fault;
        const struct refusal f = {op, call->request_id, report.step, call->arena, call->problem};
        refuse(&f, &fault, ret_reply);
    }
    ret_reply->serial = report.serial;
    ret_reply->credential = report.credential;
    ret_reply->template = report.template;
}
