/* A DeviceRegistration: what the body of a request says. */
#include <jansson.h>
#include <string.h>

#include "base/base64.h"
#include "base/json_depth.h"
#include "base/text.h"
#include "pki/csr.h"
#include "proto/dps/internal.h"

enum { MAX_BINARY_CHARS = 32 * 1024, MAX_DEPTH = 32 };

static void json_freep(json_t **j)
{
    json_decref(*j);
}

static enum err malformed(struct exchange *x, const char *what)
{
    return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%s", what);
}

/* A text of the body, in the arena; absent is as good as null. */
static enum err text_take(struct exchange *x, const json_t *body, const char *name, size_t max,
                          const char **ret_text)
{
    const json_t *value = json_object_get(body, name);
    if (!value || json_is_null(value))
        return ERR_OK;
    if (!json_is_string(value) || json_string_length(value) > max)
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%s is no text, or too long", name);
    *ret_text = arena_strdup(x->arena, json_string_value(value));
    return *ret_text ? ERR_OK : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
}

/* The CSR in the member of 2025 (base64 of DER) or in that of 2021 (PEM). */
static enum err csr_take(struct exchange *x, const json_t *body, struct dps_request *rq)
{
    const char *old = NULL;
    enum err e = text_take(x, body, "csr", 2 * CSR_MAX_BYTES, &rq->csr);
    if (!e)
        e = text_take(x, body, "clientCertificateCsr", 2 * CSR_MAX_BYTES, &old);
    if (!e && rq->csr && old)
        return malformed(x, "csr and clientCertificateCsr exclude each other");
    rq->old_csr = old != NULL;
    rq->csr = old ? old : rq->csr;
    return e;
}

/* A binary member, in base64. */
static enum err binary_take(struct exchange *x, const json_t *value, const char *what,
                            struct bytes *ret)
{
    if (!json_is_string(value) || json_string_length(value) > MAX_BINARY_CHARS ||
        base64_decode(x->arena, bytes_text(json_string_value(value)), ret))
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%s is no base64, or too long", what);
    return ERR_OK;
}

static enum err tpm_take(struct exchange *x, const json_t *tpm, struct dps_request *rq)
{
    const json_t *srk = json_object_get(tpm, "storageRootKey");
    enum err e = binary_take(x, json_object_get(tpm, "endorsementKey"), "tpm.endorsementKey",
                             &rq->endorsement_key);
    if (!e && srk && !json_is_null(srk))
        e = binary_take(x, srk, "tpm.storageRootKey", &rq->storage_root_key);
    return e;
}

/* The certificate of a TPM's endorsement key, then what is between it and its root: an extension,
 * as DPS has no place for it. */
static enum err endorsement_take(struct exchange *x, const json_t *cert, struct dps_request *rq)
{
    size_t count = json_is_array(cert) ? json_array_size(cert) : 1;
    enum err e = ERR_OK;
    if (!cert)
        return ERR_OK;
    if (count > ENROLLMENT_MAX_CHAIN)
        return malformed(x, "payload.ekCert has too many certificates");
    for (size_t i = 0; i < count && !e; i++)
        e = binary_take(x, json_is_array(cert) ? json_array_get(cert, i) : cert, "payload.ekCert",
                        &rq->endorsement_chain[i]);
    rq->endorsement_chain_count = count;
    return e;
}

static enum err body_read(struct exchange *x, const json_t *body, const char *registration_id,
                          struct dps_request *rq)
{
    const char *id = NULL;
    if (!json_is_object(body))
        return malformed(x, "the body must be a JSON object");
    enum err e = text_take(x, body, "registrationId", 128, &id);
    if (e)
        return e;
    if (id && !text_equal_nocase(id, registration_id))
        return malformed(x, "registrationId differs from that of the path");
    e = csr_take(x, body, rq);
    const json_t *tpm = json_object_get(body, "tpm");
    bool has_tpm = tpm && !json_is_null(tpm);
    rq->has_body = rq->csr || has_tpm; /* of a payload nothing but a TPM's ekCert is used */
    if (!e && has_tpm)
        e = tpm_take(x, tpm, rq);
    if (!e && rq->endorsement_key.len > 0)
        e = endorsement_take(x, json_object_get(json_object_get(body, "payload"), "ekCert"), rq);
    return e;
}

enum err dps_request_read(struct exchange *x, const char *registration_id, struct bytes body,
                          struct dps_request *ret_request)
{
    struct dps_request rq = {0};
    json_error_t error;
    if (!json_is_shallow(body, MAX_DEPTH))
        return malformed(x, "the body is nested too deeply");
    _cleanup_(json_freep) json_t *json = NULL;
    if (body.len > 0) {
        json = json_loadb((const char *)body.data, body.len, JSON_REJECT_DUPLICATES, &error);
        if (!json)
            return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "the body is no JSON: %.120s",
                             error.text);
        enum err e = body_read(x, json, registration_id, &rq);
        if (e)
            return e;
    }
    *ret_request = rq;
    return ERR_OK;
}
