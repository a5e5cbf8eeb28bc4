#include "proto/dps/dps.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "enroll/catalog.h"
#include "enroll/pipeline.h"
#include "model/registration_id.h"
#include "pki/cert.h"
#include "proto/dps/internal.h"
#include "proto/dps/sas.h"

enum {
    MAX_CHAIN = 8,
    POLL_BODY_BYTES = 1024, /* some clients send "{}" */
    CODE_NO_HUB = 400208,
    CODE_AGAIN = 429001,
    GATED = 1
};

/* One request: who asks, how it proves itself, and what for. */
struct call {
    struct service *service;
    struct exchange *x;
    const char *registration_id; /* as it was sent */
    const char *lower;
    struct sas sas;
    bool signed_;                    /* else by a client certificate */
    struct enrollment_report report; /* of the pipeline, once it has run */
};

/* "2021-06-01", perhaps with "-preview": whichever it is. */
static bool version_valid(const char *v)
{
    static const char form[] = "dddd-dd-dd";
    for (size_t i = 0; i < sizeof(form) - 1; i++, v++) {
        if (form[i] == 'd' ? !isdigit((unsigned char)*v) : *v != '-')
            return false;
    }
    return *v == '\0' || strcmp(v, "-preview") == 0;
}

static enum err version_check(struct exchange *x)
{
    for (size_t i = 0; i < x->query_count; i++) {
        if (strcmp(x->query[i].name, "api-version") == 0 && version_valid(x->query[i].value))
            return ERR_OK;
    }
    return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                     "the query must have api-version, such as 2021-06-01");
}

static enum err call_begin(struct service *service, struct exchange *x, struct call *c)
{
    const char *header = exchange_header(x, "Authorization");
    *c = (struct call){.service = service, .x = x, .registration_id = x->args[1]};
    if (!service->dps_scope || strcasecmp(x->args[0], service->dps_scope) != 0)
        return fault_set(&x->fault, FAULT_DPS_SCOPE, "\"%.40s\"", x->args[0]);
    if (!registration_id_valid(x->args[1]))
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                         "a registration id has 1 to %d characters of A-Z a-z 0-9 . _ : - and ends "
                         "with a letter, a digit or -",
                         REGISTRATION_ID_MAX_CHARS);
    enum err e = version_check(x);
    char *lower = arena_strdup(x->arena, x->args[1]);
    for (char *p = lower; p && *p; p++)
        *p = (char)tolower((unsigned char)*p);
    c->lower = lower;
    if (!e && !lower)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    if (e || !header)
        return e;
    c->signed_ = true;
    e = sas_parse(x->arena, header, &c->sas, &x->fault);
    return e ? e
             : sas_check(&c->sas, service->dps_scope, c->registration_id, clock_wall_s(),
                         &x->fault);
}

static void body_fill(const struct dps_request *body, struct enrollment_request *rq)
{
    if (body->csr)
        rq->csr = bytes_text(body->csr);
    rq->endorsement_key = body->endorsement_key;
    rq->storage_root_key = body->storage_root_key;
    rq->endorsement_chain_count = body->endorsement_chain_count;
    memcpy(rq->endorsement_chain, body->endorsement_chain, sizeof(rq->endorsement_chain));
}

/* Runs the pipeline for it. */
static enum err call_run(struct call *c, enum enrollment_flow flow, const char *operation,
                         const struct dps_request *body, struct enrollment_result *ret_result)
{
    struct exchange *x = c->x;
    struct enrollment_request rq = {
        .flow = flow,
        .request_id = x->request_id,
        .since_us = x->since_us,
        .protocol = "dps",
        .operation = operation,
        .source = x->source,
        .registration_id = c->registration_id,
        .gate = c->service->device_gate,
    };
    if (c->signed_) {
        rq.signed_text = c->sas.signed_text;
        rq.signature = c->sas.signature;
    } else {
        memcpy(rq.chain, x->chain, sizeof(rq.chain));
        rq.chain_count = x->chain_count;
    }
    if (body)
        body_fill(body, &rq);
    enum err e = pipeline_run(c->service, &rq, x->arena, ret_result, &c->report, &x->fault);
    x->log_serial = c->report.serial;
    x->log_credential = c->report.credential;
    x->log_template = c->report.template;
    return e;
}

/* Tells the device as much as it may know. */
static enum err refuse(struct call *c, enum err e)
{
    struct exchange *x = c->x;
    if (e == ERR_DENIED && x->fault.code == FAULT_TPM_CHALLENGE && c->report.challenge.len > 0)
        return dps_challenge_send(x, c->report.challenge);
    if (e == ERR_DENIED)
        exchange_problem(x, fault_public(x->fault.code, c->report.proven));
    return e;
}

/* What the enrollment that it proved itself by assigned to it: another's is none of its business.
 */
static enum err assignment_find(struct call *c, struct assignment *ret)
{
    const struct enrollment_report *r = &c->report;
    bool certified = r->attestation == ATTEST_X509;
    struct bytes fingerprint = bytes_of(r->leaf.fingerprint, certified ? SHA256_BYTES : 0);
    enum err e =
        assignment_get(c->service->db, c->lower, r->enrollment_id, fingerprint, c->x->arena, ret);
    if (e && e != ERR_NOT_FOUND)
        return fault_set(&c->x->fault, FAULT_DB_UNAVAILABLE, "reading the assignment: %s",
                         err_name(e));
    if (!e && strcmp(ret->standing, "ok") != 0)
        return fault_set(&c->x->fault, fault_parse(ret->standing), "%s", c->registration_id);
    return e;
}

/* A certificate of the catalog, beyond the snapshot's life. */
static enum err der_keep(struct exchange *x, struct bytes der, struct bytes *ret_der)
{
    const void *copy = arena_copy(x->arena, der.data, der.len);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret_der = bytes_of(copy, der.len);
    return ERR_OK;
}

/* The certificate and those above it, up to the root. */
static enum err chain_collect(struct call *c, struct bytes leaf, struct bytes *chain, size_t *ret)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    struct bytes issuer, above[MAX_CHAIN - 1];
    if (catalog_get(c->service->catalog, &snapshot))
        return fault_set(&c->x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    size_t count = 0;
    if (cert_issuer_der(leaf, &issuer) == ERR_OK)
        count = snapshot_chain(snapshot, issuer, above, MAX_CHAIN - 1);
    chain[0] = leaf;
    for (size_t i = 0; i < count; i++) {
        enum err e = der_keep(c->x, above[i], &chain[i + 1]);
        if (e)
            return e;
    }
    *ret = count + 1;
    return ERR_OK;
}

/* Is what was refused only not possible now, so that the device had better poll? Nothing is kept of
 * who has proved nothing: it would take the place of what the device itself asked. */
static bool is_worth_keeping(const struct call *c)
{
    const struct exchange *x = c->x;
    int status = fault_row(x->fault.code)->http_status;
    if (!c->report.proven)
        return false;
    return status == 202 || status == 429 ||
           (status == 503 && x->fault.code != FAULT_DB_UNAVAILABLE);
}

/* The request waits in the registry; where it cannot, the id says what is lost. */
static void request_keep(struct call *c, const char *operation, struct bytes body)
{
    struct exchange *x = c->x;
    char id[DPS_OPERATION_BYTES];
    const char *text = arena_printf(x->arena, "%.*s", (int)body.len, (const char *)body.data);
    if (!operation && !dps_operation_make(c->lower, DPS_KEPT, x->request_id, id))
        operation = arena_strdup(x->arena, id);
    if (!operation || !text || operation_keep(c->service->db, c->lower, operation, text))
        return;
    x->adapter = (void *)(uintptr_t)operation;
}

/* The CA of its group; of one that has gone since nothing is said. */
static enum err signer_find(struct call *c, struct bytes *ret_der)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    if (c->report.signer_id == 0)
        return ERR_OK;
    if (catalog_get(c->service->catalog, &snapshot))
        return fault_set(&c->x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    const struct catalog_ca *ca = snapshot_ca(snapshot, c->report.signer_id);
    return ca ? der_keep(c->x, ca->der, ret_der) : ERR_OK;
}

static enum err answer_begin(struct call *c, const struct assignment *g, struct dps_answer *ret)
{
    enum attestation by = c->report.attestation;
    *ret = (struct dps_answer){
        .assignment = g, .by = by, .leaf = by == ATTEST_X509 ? &c->report.leaf : NULL};
    return signer_find(c, &ret->signer);
}

static enum err registered_send(struct call *c, const char *operation,
                                const struct dps_request *body,
                                const struct enrollment_result *result)
{
    struct bytes chain[MAX_CHAIN];
    struct assignment g;
    char id[DPS_OPERATION_BYTES];
    struct dps_answer answer;
    enum err e = assignment_find(c, &g);
    if (!e)
        e = answer_begin(c, &g, &answer);
    if (e)
        return e;
    answer.operation = operation;
    answer.request = body;
    answer.chain = chain;
    if (!operation) {
        e = dps_operation_make(c->lower, DPS_KEPT, c->x->request_id, id);
        answer.operation = id;
    }
    if (result)
        answer.tpm_key = result->tpm_key;
    if (!e && result && result->certificate.len > 0)
        e = chain_collect(c, result->certificate, chain, &answer.chain_count);
    return e ? e : dps_answer_send(c->x, &answer);
}

/* Registers; operation NULL: it is asked for the first time. */
static enum err registration_do(struct call *c, const char *operation, struct bytes body)
{
    struct exchange *x = c->x;
    struct dps_request rq;
    struct enrollment_result result = {.replayed = false};
    enum err e = dps_request_read(x, c->registration_id, body, &rq);
    if (e)
        return e;
    e = call_run(c, rq.csr ? FLOW_ENROL : FLOW_ASSIGN, "register", &rq, &result);
    if (!e)
        return registered_send(c, operation, &rq, &result);
    if (x->fault.code == FAULT_ENROLLMENT_NO_ENDPOINT)
        return dps_failure_send(x, operation ? operation : x->request_id, CODE_NO_HUB);
    if (is_worth_keeping(c))
        request_keep(c, operation, body);
    return refuse(c, e);
}

/* PUT: registers at once, and says so; clients take that as well as an operation to be polled. */
static enum err register_handle(struct service *service, struct exchange *x)
{
    struct call c;
    enum err e = call_begin(service, x, &c);
    return e ? e : registration_do(&c, NULL, x->body);
}

/* What an operation that is not kept has come to. */
static enum err poll_finished(struct call *c, const char *operation, enum dps_kept kept)
{
    struct enrollment_result result;
    struct assignment g;
    if (kept == DPS_LOST) {
        (void)fault_set(&c->x->fault, FAULT_OVERLOADED,
                        "the server was full and could not keep the request: register again");
        return dps_failure_send(c->x, operation, CODE_AGAIN);
    }
    enum err e = call_run(c, FLOW_LOOKUP, "status", NULL, &result);
    if (e)
        return refuse(c, e);
    e = assignment_find(c, &g);
    if (!e)
        return registered_send(c, operation, NULL, NULL);
    if (e == ERR_DENIED)
        return refuse(c, e);
    if (e == ERR_NOT_FOUND && kept == DPS_GUESSABLE)
        return registration_do(c, operation, bytes_of(NULL, 0));
    return e == ERR_NOT_FOUND
               ? fault_set(&c->x->fault, FAULT_DPS_OPERATION, "nothing is known of it any more")
               : e;
}

static enum err poll_handle(struct service *service, struct exchange *x)
{
    struct call c;
    const char *body = NULL, *operation = x->args[2];
    enum dps_kept kept = DPS_LOST;
    enum err e = call_begin(service, x, &c);
    if (e)
        return e;
    if (!dps_operation_is(operation, c.lower, &kept))
        return fault_set(&x->fault, FAULT_DPS_OPERATION, "it is of another registration");
    e = operation_get(service->db, c.lower, operation, x->arena, &body);
    if (!e)
        return registration_do(&c, operation, bytes_text(body));
    if (e != ERR_NOT_FOUND)
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "reading the operation: %s", err_name(e));
    return poll_finished(&c, operation, kept);
}

/* POST: what was assigned; registers nothing. */
static enum err lookup_handle(struct service *service, struct exchange *x)
{
    struct call c;
    struct dps_request rq;
    struct enrollment_result result;
    struct assignment g;
    struct dps_answer answer;
    enum err e = call_begin(service, x, &c);
    if (!e)
        e = dps_request_read(x, c.registration_id, x->body, &rq);
    if (!e && rq.csr)
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "a lookup issues no certificate");
    if (e)
        return e;
    e = call_run(&c, FLOW_LOOKUP, "lookup", &rq, &result);
    if (e)
        return refuse(&c, e);
    e = assignment_find(&c, &g);
    if (e == ERR_NOT_FOUND)
        return fault_set(&x->fault, FAULT_DPS_UNREGISTERED, "%s", c.registration_id);
    if (e)
        return refuse(&c, e);
    e = answer_begin(&c, &g, &answer);
    return e ? e : dps_answer_send(x, &answer);
}

static const enum dps_kind is_register = DPS_REGISTER, is_poll = DPS_POLL, is_lookup = DPS_LOOKUP;

static const struct route routes[] = {
    {HTTP_PUT, "/{}/registrations/{}/register", "application/json", DPS_MAX_BODY_BYTES, GATED,
     register_handle, &is_register},
    {HTTP_GET, "/{}/registrations/{}/operations/{}", NULL, POLL_BODY_BYTES, GATED, poll_handle,
     &is_poll},
    {HTTP_POST, "/{}/registrations/{}", "application/json", DPS_MAX_BODY_BYTES, GATED,
     lookup_handle, &is_lookup},
};

const struct route_table dps_routes = {
    .rows = routes, .count = ARRAY_LEN(routes), .protocol = PROTOCOL_DPS, .problem = dps_problem};
