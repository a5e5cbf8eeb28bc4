/* A DeviceRegistrationResult, by itself or as the status of an operation. */
#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "base/json_out.h"
#include "pki/cert.h"
#include "proto/dps/internal.h"

enum { MAX_ANSWER_BYTES = 256 * 1024, MAX_ETAG_BYTES = 64 };

#define JSON_TYPE "application/json; charset=utf-8"

/* base64 of the quoted number, as DPS writes it. */
static void etag_write(struct buf *b, const char *etag)
{
    char quoted[MAX_ETAG_BYTES];
    snprintf(quoted, sizeof(quoted), "\"%s\"", etag);
    json_base64(b, "etag", bytes_text(quoted));
}

static enum err attestation_write(struct exchange *x, struct buf *b, const struct dps_answer *a)
{
    static const char *const names[] = {
        [ATTEST_SYMMETRIC] = "symmetricKey", [ATTEST_X509] = "x509", [ATTEST_TPM] = "tpm"};
    enum err e = ERR_OK;
    json_key(b, names[a->by]);
    json_begin_object(b);
    if (a->tpm_key.len > 0)
        json_base64(b, "authenticationKey", a->tpm_key);
    if (a->assignment->group)
        json_text(b, "enrollmentGroupId", a->assignment->group);
    if (a->leaf)
        e = dps_certificate_write(x->arena, b, "certificateInfo", x->chain[0], a->leaf);
    if (!e && a->signer.len > 0)
        e = dps_certificate_write(x->arena, b, "signingCertificateInfo", a->signer, NULL);
    json_end_object(b);
    return e;
}

static enum err chain_write(struct exchange *x, struct buf *b, const struct dps_answer *a)
{
    if (a->chain_count == 0)
        return ERR_OK;
    if (a->request->old_csr) {
        const char *pem = cert_pem(x->arena, a->chain[0]);
        json_text(b, "issuedClientCertificate", pem);
        return pem ? ERR_OK : ERR_NO_MEMORY;
    }
    json_key(b, "issuedCertificateChain");
    json_begin_array(b);
    for (size_t i = 0; i < a->chain_count; i++) {
        buf_add_text(b, i > 0 ? ",\"" : "\"");
        base64_encode(b, a->chain[i]);
        buf_add_char(b, '"');
    }
    json_end_array(b);
    return ERR_OK;
}

static enum err result_write(struct exchange *x, struct buf *b, const struct dps_answer *a)
{
    const struct assignment *g = a->assignment;
    json_begin_object(b);
    json_text(b, "registrationId", x->args[1]);
    json_text(b, "createdDateTimeUtc", g->created);
    json_text(b, "assignedHub", g->endpoint);
    json_text(b, "deviceId", g->device_id);
    json_text(b, "status", "assigned");
    json_text(b, "substatus", g->substatus);
    json_text(b, "lastUpdatedDateTimeUtc", g->updated);
    etag_write(b, g->etag);
    if (g->payload)
        json_raw(b, "payload", g->payload);
    enum err e = attestation_write(x, b, a);
    if (!e)
        e = chain_write(x, b, a);
    json_end_object(b);
    return e;
}

enum err dps_answer_send(struct exchange *x, const struct dps_answer *a)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_ANSWER_BYTES);
    if (a->operation) {
        json_begin_object(&b);
        json_text(&b, "operationId", a->operation);
        json_text(&b, "status", "assigned");
        json_key(&b, "registrationState");
    }
    enum err e = result_write(x, &b, a);
    if (a->operation)
        json_end_object(&b);
    return e ? e : exchange_reply_buf(x, 200, JSON_TYPE, &b);
}

enum err dps_challenge_send(struct exchange *x, struct bytes challenge)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_ANSWER_BYTES);
    json_begin_object(&b);
    json_text(&b, "message", fault_row(FAULT_TPM_CHALLENGE)->title);
    json_base64(&b, "authenticationKey", challenge);
    json_text(&b, "keyName", "registration");
    json_end_object(&b);
    x->told = FAULT_TPM_CHALLENGE;
    return exchange_reply_buf(x, 401, JSON_TYPE, &b);
}

enum err dps_failure_send(struct exchange *x, const char *operation, int code)
{
    _cleanup_(buf_donep) struct buf b = {0};
    const struct fault_row *row = fault_row(x->fault.code);
    const char *message = arena_printf(x->arena, "%s: %s", row->title, x->fault.detail);
    buf_init(&b, MAX_ANSWER_BYTES);
    json_begin_object(&b);
    json_text(&b, "operationId", operation);
    json_text(&b, "status", "failed");
    json_key(&b, "registrationState");
    json_begin_object(&b);
    json_text(&b, "registrationId", x->args[1]);
    json_text(&b, "status", "failed");
    json_int(&b, "errorCode", code);
    json_text(&b, "errorMessage", message ? message : row->title);
    json_end_object(&b);
    json_end_object(&b);
    x->told = x->fault.code;
    return exchange_reply_buf(x, 200, JSON_TYPE, &b);
}
