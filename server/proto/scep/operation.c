/* PKIOperation: a message, what it asks, and the CertRep. */
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "enroll/catalog.h"
#include "enroll/crl_shelf.h"
#include "enroll/pipeline.h"
#include "pki/cert.h"
#include "proto/scep/internal.h"
#include "store/scep.h"

enum { MAX_ISSUERS = 64, TOO_MANY = 429, UNAVAILABLE = 503 };

struct call {
    struct service *service;
    struct exchange *x;
    struct scep_message message;
    struct bytes sent; /* the message as it came */
};

/* failInfo of a fault, section 3.2.1.4.4; what is not here is badRequest. */
static enum scep_fail fail_of(enum fault_code code)
{
    static const struct {
        enum fault_code code;
        enum scep_fail fail;
    } fails[] = {
        {FAULT_SCEP_ALGORITHM, SCEP_BAD_ALG},      {FAULT_CSR_KEY, SCEP_BAD_ALG},
        {FAULT_SCEP_CHECK, SCEP_BAD_CHECK},        {FAULT_CSR_SIGNATURE, SCEP_BAD_CHECK},
        {FAULT_SCEP_SIGNER, SCEP_BAD_CHECK},       {FAULT_CERT_EXPIRED, SCEP_BAD_TIME},
        {FAULT_CERT_NOT_YET, SCEP_BAD_TIME},       {FAULT_SCEP_TRANSACTION, SCEP_BAD_CERT_ID},
        {FAULT_SCEP_CERTIFICATE, SCEP_BAD_CERT_ID}};
    for (size_t i = 0; i < ARRAY_LEN(fails); i++) {
        if (fails[i].code == code)
            return fails[i].fail;
    }
    return SCEP_BAD_REQUEST;
}

static enum err reply_send(struct call *c, const struct scep_reply *r)
{
    struct bytes der;
    enum err e = scep_write(c->service->scep, c->x->arena, r, &der);
    if (e)
        return fault_set(&c->x->fault, FAULT_INTERNAL, "writing the answer: %s", err_name(e));
    exchange_reply(c->x, 200, "application/x-pki-message", der);
    return ERR_OK;
}

static enum err success_send(struct call *c, struct bytes content)
{
    const struct scep_reply r = {
        .message = &c->message, .status = SCEP_SUCCESS, .content = content};
    return reply_send(c, &r);
}

/* What only means that it is not possible now is HTTP's: a FAILURE would be final. */
static bool is_temporary(enum fault_code code)
{
    int status = fault_row(code)->http_status;
    return status == TOO_MANY || status == UNAVAILABLE;
}

/* The fault is the client's answer, as far as it may know. */
static enum err refusal_send(struct call *c, bool proven)
{
    struct exchange *x = c->x;
    enum fault_code seen = fault_public(x->fault.code, proven);
    const struct fault_row *row = fault_row(seen);
    struct scep_reply r = {.message = &c->message, .status = SCEP_FAILURE, .fail = fail_of(seen)};
    if (is_temporary(seen) || seen == FAULT_INTERNAL)
        return ERR_DENIED;
    bool full = seen == x->fault.code && x->fault.detail[0] != '\0';
    x->told = seen;
    r.fail_text = full
                      ? arena_printf(x->arena, "%s: %s: %s", row->code, row->title, x->fault.detail)
                      : arena_printf(x->arena, "%s: %s", row->code, row->title);
    if (seen == FAULT_APPROVAL_PENDING)
        r.status = SCEP_PENDING;
    return r.fail_text ? reply_send(c, &r) : ERR_NO_MEMORY;
}

/* Whose key signed, and which of its transactions: nobody polls another's. */
static enum err transaction_name(struct call *c, uint8_t ret_name[SHA256_BYTES])
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, SCEP_MAX_TRANSACTION_CHARS + SHA256_BYTES);
    buf_add(&b, c->message.signer_spki, SHA256_BYTES);
    buf_add_text(&b, c->message.transaction);
    return b.overflow ? ERR_NO_MEMORY : digest_sha256(buf_bytes(&b), ret_name);
}

/* So that it is there when the client polls; what is secret in it stays enveloped. A device has one
 * that waits, as it has one approval. */
static enum err waiting_keep(struct call *c, const struct enrollment_report *report)
{
    uint8_t name[SHA256_BYTES];
    const char *device = arena_printf(c->x->arena, "%s %s", report->template, report->serial);
    enum err e = device ? transaction_name(c, name) : ERR_NO_MEMORY;
    if (!e)
        e = scep_pending_keep(c->service->db, bytes_of(name, sizeof(name)), c->sent, device,
                              c->x->arena);
    return e ? fault_set(&c->x->fault, FAULT_DB_UNAVAILABLE, "keeping the request: %s", err_name(e))
             : ERR_OK;
}

/* Section 2.3: a self-signed certificate is of the key that is to be certified, and proves nothing
 * more; any other is a credential. */
static enum err credential_fill(struct call *c, const struct csr *csr,
                                struct enrollment_request *rq)
{
    const struct scep_message *m = &c->message;
    bool same_key = memcmp(m->signer_spki, csr->spki_sha256, SHA256_BYTES) == 0;
    if (m->self_signed && !rq->renew) {
        rq->token = csr->challenge ? arena_strdup(c->x->arena, csr->challenge) : NULL;
        return same_key ? ERR_OK
                        : fault_set(&c->x->fault, FAULT_SCEP_SIGNER,
                                    "the signer's certificate is of another key than the CSR");
    }
    memcpy(rq->chain, m->certs, sizeof(m->certs));
    rq->chain_count = m->cert_count;
    return ERR_OK;
}

static enum err request_fill(struct call *c, struct bytes content, const char *operation,
                             struct enrollment_request *rq)
{
    struct csr csr = {0};
    struct exchange *x = c->x;
    *rq = (struct enrollment_request){
        .request_id = x->request_id,
        .since_us = x->since_us,
        .protocol = "scep",
        .operation = operation,
        .source = x->source,
        .template_name = x->args[0],
        .renew = c->message.type == SCEP_RENEWAL_REQ,
        .messaged = true,
        .gate = c->service->device_gate,
        .csr = content,
    };
    enum err e = csr_decode(x->arena, content, &csr, &x->fault);
    if (!e)
        e = credential_fill(c, &csr, rq);
    csr_done(&csr);
    /* decryption with a wrong key gives anything at all, which must not be told from a wrong key */
    if (x->fault.code == FAULT_CSR_MALFORMED)
        (void)fault_set(&x->fault, FAULT_SCEP_CHECK, "%s", "");
    return e;
}

static enum err enrol(struct call *c, const char *operation)
{
    struct exchange *x = c->x;
    struct bytes content, cms;
    struct enrollment_request rq;
    struct enrollment_result result;
    struct enrollment_report report = {0};
    enum err e = scep_open(c->service->scep, x->arena, &c->service->scep_options, &c->message,
                           &content, &x->fault);
    if (!e)
        e = request_fill(c, content, operation, &rq);
    if (e)
        return e == ERR_DENIED ? refusal_send(c, false) : e;
    e = pipeline_run(c->service, &rq, x->arena, &result, &report, &x->fault);
    x->log_serial = report.serial;
    x->log_credential = report.credential;
    x->log_template = report.template;
    if (e == ERR_DENIED && x->fault.code == FAULT_APPROVAL_PENDING)
        e = waiting_keep(c, &report) ? ERR_DENIED : e;
    if (e)
        return e == ERR_DENIED ? refusal_send(c, report.proven) : e;
    e = cms_certs_only(x->arena, &result.certificate, 1, &cms);
    return e ? e : success_send(c, cms);
}

/* Section 3.3.3: what became of an earlier request, which is done now if it can be. */
static enum err poll(struct call *c)
{
    struct exchange *x = c->x;
    uint8_t name[SHA256_BYTES];
    struct bytes content, kept;
    enum err e = scep_open(c->service->scep, x->arena, &c->service->scep_options, &c->message,
                           &content, &x->fault);
    if (!e && !scep_is_issuer_and_subject(content))
        e = fault_set(&x->fault, FAULT_SCEP_CHECK, "%s", "");
    if (!e)
        e = transaction_name(c, name);
    if (e)
        return e == ERR_DENIED ? refusal_send(c, false) : e;
    e = scep_pending_get(c->service->db, bytes_of(name, sizeof(name)), x->arena, &kept);
    if (e == ERR_NOT_FOUND) {
        (void)fault_set(&x->fault, FAULT_SCEP_TRANSACTION, "%.80s", c->message.transaction);
        return refusal_send(c, false);
    }
    if (e)
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "looking up the request: %s",
                         err_name(e));
    struct bytes nonce = c->message.nonce;
    c->sent = kept;
    e = scep_read(x->arena, kept, &c->service->scep_options, &c->message, &x->fault);
    c->message.nonce = nonce; /* the answer is to what was sent now */
    return e ? refusal_send(c, false) : enrol(c, "CertPoll");
}

/* GetCert and GetCRL are for devices of ours: a stranger cannot have us encrypt for him. */
static enum err device_check(struct call *c, struct chain_verdict *ret,
                             struct snapshot **ret_snapshot)
{
    struct exchange *x = c->x;
    if (catalog_get(c->service->catalog, ret_snapshot))
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    return chain_verify(snapshot_trust(*ret_snapshot), x->arena, c->message.certs,
                        c->message.cert_count, clock_wall_s(), ret, &x->fault);
}

/* Which CA of ours a message means by its name; 0: none. */
static int64_t issuer_of(const struct snapshot *s, struct bytes name)
{
    const char *names[MAX_ISSUERS];
    size_t count = snapshot_issuers(s, names, ARRAY_LEN(names));
    for (size_t i = 0; i < count; i++) {
        const struct issuer *issuer = snapshot_issuer(s, names[i]);
        const struct catalog_ca *ca = issuer ? snapshot_ca(s, issuer_id(issuer)) : NULL;
        if (ca && bytes_equal(ca->subject_der, name))
            return ca->id;
    }
    return 0;
}

static enum err certificate_find(struct call *c, int64_t issuer, struct bytes serial,
                                 struct bytes fingerprint, struct bytes *ret_cms)
{
    struct exchange *x = c->x;
    struct bytes der;
    enum err e = scep_own_certificate(c->service->db, fingerprint, issuer, serial, x->arena, &der);
    if (e == ERR_NOT_FOUND)
        return fault_set(&x->fault, FAULT_SCEP_CERTIFICATE, "the device has no such certificate");
    if (e)
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "looking it up: %s", err_name(e));
    return cms_certs_only(x->arena, &der, 1, ret_cms);
}

static enum err crl_find(struct call *c, int64_t issuer, struct bytes *ret_cms)
{
    struct exchange *x = c->x;
    const struct crl_name name = {.issuer_id = issuer, .shards = 1};
    struct crl_signed crl;
    enum err e = crl_shelf_get(c->service->crls, c->service->db, &name, x->arena, &crl);
    if (e == ERR_NOT_FOUND)
        return fault_set(&x->fault, FAULT_SCEP_CERTIFICATE, "the CA has no CRL");
    if (e)
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "%s", err_name(e));
    return scep_crl_only(x->arena, crl.der, ret_cms);
}

/* Sections 3.3.4 and 3.3.5. */
static enum err get(struct call *c)
{
    _cleanup_(snapshot_dropp) struct snapshot *s = NULL;
    struct exchange *x = c->x;
    struct chain_verdict peer = {0};
    struct bytes content, name, serial, cms;
    enum err e = scep_open(c->service->scep, x->arena, &c->service->scep_options, &c->message,
                           &content, &x->fault);
    if (!e && scep_issuer_and_serial(x->arena, content, &name, &serial))
        e = fault_set(&x->fault, FAULT_SCEP_CHECK, "%s", "");
    if (!e)
        e = device_check(c, &peer, &s);
    int64_t issuer = e ? 0 : issuer_of(s, name);
    if (!e && issuer == 0)
        e = fault_set(&x->fault, FAULT_SCEP_CERTIFICATE, "no CA of ours has this name");
    if (!e && c->message.type == SCEP_GET_CRL)
        e = crl_find(c, issuer, &cms);
    else if (!e)
        e = certificate_find(c, issuer, serial, bytes_of(peer.leaf.fingerprint, SHA256_BYTES),
                             &cms);
    if (e)
        return e == ERR_DENIED ? refusal_send(c, false) : e;
    return success_send(c, cms);
}

static enum err dispatch(struct call *c)
{
    switch (c->message.type) {
    case SCEP_PKCS_REQ:
        return enrol(c, "PKCSReq");
    case SCEP_RENEWAL_REQ:
        return enrol(c, "RenewalReq");
    case SCEP_CERT_POLL:
        return poll(c);
    case SCEP_GET_CERT:
    case SCEP_GET_CRL:
        return get(c);
    default:
        (void)fault_set(&c->x->fault, FAULT_SCEP_MALFORMED, "messageType %d is none that is asked",
                        c->message.type);
        return refusal_send(c, false);
    }
}

enum err scep_operation(struct service *service, struct exchange *x, struct bytes message)
{
    struct call c = {.service = service, .x = x, .sent = message};
    enum err e = scep_read(x->arena, message, &service->scep_options, &c.message, &x->fault);
    return e ? e : dispatch(&c);
}
