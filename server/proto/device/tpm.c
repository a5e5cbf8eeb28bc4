#include "proto/device/tpm.h"

#include <jansson.h>
#include <stddef.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/json_out.h"
#include "enroll/pipeline.h"
#include "model/registration_id.h"
#include "proto/auth.h"
#include "proto/device/enroll.h"

enum { MAX_CHARS = 32 * 1024, MAX_ANSWER_BYTES = 16 * 1024 };

static void json_freep(json_t **j)
{
    json_decref(*j);
}

static enum err malformed(struct exchange *x, const char *name, const char *why)
{
    return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%.64s %s", name, why);
}

/* Members in base64. must: both requests have it, or only the second. */
static const struct member {
    const char *name;
    size_t at; /* of the bytes in a request */
    bool in_challenge;
} members[] = {
    {"endorsement_key", offsetof(struct enrollment_request, endorsement_key), true},
    {"attestation_key", offsetof(struct enrollment_request, attestation_key), true},
    {"activated", offsetof(struct enrollment_request, activated), false},
    {"key", offsetof(struct enrollment_request, certified_key), false},
    {"attest", offsetof(struct enrollment_request, certification), false},
    {"signature", offsetof(struct enrollment_request, certification_signature), false},
};

static enum err binary_take(struct exchange *x, const json_t *value, const char *name,
                            struct bytes *ret)
{
    if (!json_is_string(value) || json_string_length(value) > MAX_CHARS ||
        base64_decode(x->arena, bytes_text(json_string_value(value)), ret) || ret->len == 0)
        return malformed(x, name, "is missing, no base64, or too long");
    return ERR_OK;
}

static enum err members_take(struct exchange *x, const json_t *body, bool challenge,
                             struct enrollment_request *rq)
{
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        const struct member *m = &members[i];
        if (challenge && !m->in_challenge)
            continue;
        enum err e = binary_take(x, json_object_get(body, m->name), m->name,
                                 (struct bytes *)((char *)rq + m->at));
        if (e)
            return e;
    }
    return ERR_OK;
}

/* The endorsement key's certificate, then what is between it and its root. */
static enum err chain_take(struct exchange *x, const json_t *body, struct enrollment_request *rq)
{
    static const char name[] = "endorsement_certificate";
    const json_t *value = json_object_get(body, name);
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    enum err e = ERR_OK;
    if (!value)
        return ERR_OK;
    if (count > ENROLLMENT_MAX_CHAIN)
        return malformed(x, name, "has too many certificates");
    for (size_t i = 0; i < count && !e; i++)
        e = binary_take(x, json_is_array(value) ? json_array_get(value, i) : value, name,
                        &rq->endorsement_chain[i]);
    rq->endorsement_chain_count = count;
    return e;
}

static enum err names_check(struct exchange *x, json_t *body, bool challenge)
{
    static const char *const others[] = {"registration_id", "endorsement_certificate", "csr"};
    const char *key;
    json_t *value;
    if (!json_is_object(body))
        return malformed(x, "the body", "must be a JSON object");
    json_object_foreach(body, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < ARRAY_LEN(others); i++)
            known |= strcmp(others[i], key) == 0 && !(challenge && i == ARRAY_LEN(others) - 1);
        for (size_t i = 0; i < ARRAY_LEN(members); i++)
            known |= strcmp(members[i].name, key) == 0 && (members[i].in_challenge || !challenge);
        if (!known)
            return malformed(x, key, "is not a member this call knows");
    }
    return ERR_OK;
}

static const char *text_take(struct exchange *x, const json_t *body, const char *name, size_t max)
{
    const json_t *value = json_object_get(body, name);
    size_t len = json_string_length(value);
    return len > 0 && len <= max ? arena_strdup(x->arena, json_string_value(value)) : NULL;
}

/* What the body says, as a request. */
static enum err request_fill(struct service *service, struct exchange *x, json_t *body,
                             bool challenge, struct enrollment_request *rq)
{
    enum err e = names_check(x, body, challenge);
    *rq = (struct enrollment_request){
        .flow = challenge ? FLOW_LOOKUP : FLOW_ENROL,
        .request_id = x->request_id,
        .since_us = x->since_us,
        .protocol = "tpm",
        .operation = challenge ? "challenge" : "enroll",
        .source = x->source,
        .gate = service->device_gate,
    };
    if (e)
        return e;
    rq->registration_id = text_take(x, body, "registration_id", REGISTRATION_ID_MAX_CHARS);
    if (!rq->registration_id || !registration_id_valid(rq->registration_id))
        return malformed(x, "registration_id", "is missing, or has characters that no such id has");
    const char *csr = challenge ? NULL : text_take(x, body, "csr", MAX_CHARS);
    if (!challenge && !csr)
        return malformed(x, "csr", "is missing, or too long");
    if (csr)
        rq->csr = bytes_text(csr);
    e = members_take(x, body, challenge, rq);
    return e ? e : chain_take(x, body, rq);
}

static enum err question_answer(struct exchange *x, const struct tpm_question *q)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_ANSWER_BYTES);
    json_begin_object(&b);
    json_base64(&b, "credential", q->credential);
    json_base64(&b, "secret", q->secret);
    json_base64(&b, "nonce", q->nonce);
    json_end_object(&b);
    buf_add_char(&b, '\n');
    x->fault = (struct fault){0};
    return exchange_reply_buf(x, 200, "application/json", &b);
}

static enum err handle(struct service *service, struct exchange *x, bool challenge)
{
    struct enrollment_request rq;
    struct enrollment_result result;
    struct enrollment_report report;
    _cleanup_(json_freep) json_t *body =
        json_loadb((const char *)x->body.data, x->body.len, JSON_REJECT_DUPLICATES, NULL);
    if (request_fill(service, x, body, challenge, &rq))
        return auth_refuse(x, false);
    enum err e = pipeline_run(service, &rq, x->arena, &result, &report, &x->fault);
    x->log_serial = report.serial;
    x->log_credential = report.credential;
    x->log_template = report.template;
    if (e && challenge && x->fault.code == FAULT_TPM_CHALLENGE)
        return question_answer(x, &report.question);
    return e ? auth_refuse(x, report.proven) : device_enroll_answer(service, x, &result);
}

enum err device_tpm_challenge_handle(struct service *service, struct exchange *x)
{
    return handle(service, x, true);
}

enum err device_tpm_enroll_handle(struct service *service, struct exchange *x)
{
    return handle(service, x, false);
}
