#include "enroll/pipeline.h"

#include <string.h>

#include "base/clock.h"
#include "base/json_out.h"
#include "base/limit.h"
#include "base/log.h"
#include "base/text.h"
#include "enroll/journal.h"
#include "enroll/metrics.h"
#include "enroll/steps.h"

enum { MAX_STEPS_TEXT_BYTES = 2048, MAX_FAILURE_BYTES = 16384 };

/* The ways as bits. */
enum {
    ENROL = 1 << FLOW_ENROL,
    CREATE = 1 << FLOW_CREATE,
    REGISTER = 1 << FLOW_REGISTER,
    ADMIT = 1 << FLOW_ADMIT,
    CERTIFY = 1 << FLOW_CERTIFY,
    ASSIGN = 1 << FLOW_ASSIGN,
    LOOKUP = 1 << FLOW_LOOKUP,
    ALL = ENROL | CREATE | REGISTER | ADMIT | ASSIGN,
    ANSWERED = LOOKUP << 1, /* also where the answer is there already */
};

static const struct step {
    const char *name;
    enum err (*run)(struct enrolment *e);
    const char *reached; /* the state an attempt has come to once the step passed */
    unsigned flows;      /* that it belongs to */
} steps[] = {
    {"authenticate", step_authenticate, "UNPROVISIONED", ALL | LOOKUP},
    {"admit", step_admit, "UNPROVISIONED", ADMIT},
    {"identify", step_identify, "BOOTSTRAP", ALL | LOOKUP},
    {"decode", step_decode, "ENROLL", ENROL | CREATE | CERTIFY},
    {"link", step_link, "ENROLL", ENROL},
    {"authorize", step_authorize, "ENROLL", ENROL | CREATE | CERTIFY | ASSIGN},
    {"limit", step_limit, "ENROLL", ALL},
    {"own", step_own, "ENROLL", REGISTER},
    {"hook", step_hook, "ENROLL", ENROL | REGISTER},
    {"evaluate", step_evaluate, "ENROLL", ENROL | REGISTER | ADMIT | CERTIFY | ASSIGN},
    {"issue", step_issue, "ENROLL", ALL | CERTIFY},
    {"record", step_record, "REGISTER", ALL},
    {"journal", step_journal, "REGISTER", (ALL & ~ASSIGN) | ANSWERED},
};

const char *credential_name(enum credential_kind k)
{
    static const char *const names[] = {"none",    "token",  "station", "enrollment",
                                        "factory", "device", "claim",   "jit"};
    return names[k];
}

enum err enrolment_no_memory(struct enrolment *e)
{
    return fault_set(e->fault, FAULT_INTERNAL, "out of memory");
}

/* What the steps took, for the trail; nobody asks how long each of a batch's thousands took. NULL:
 * out of memory. */
static const char *times_text(const struct enrolment *e, const struct buf *times)
{
    return e->rq->flow == FLOW_CERTIFY ? "[]" : arena_printf(e->arena, "%s]", buf_text(times));
}

static void time_add(const struct enrolment *e, struct buf *times, enum err err, int64_t took_us)
{
    if (e->rq->flow == FLOW_CERTIFY)
        return;
    json_begin_object(times);
    json_text(times, "step", e->step);
    json_int(times, "us", took_us);
    json_text(times, "result", err ? fault_row(e->fault->code)->code : "ok");
    json_end_object(times);
}

enum err enrolment_run(struct enrolment *e)
{
    _cleanup_(buf_donep) struct buf times = {0};
    buf_init(&times, MAX_STEPS_TEXT_BYTES);
    json_begin_array(&times);
    enum err err = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(steps) && !err; i++) {
        if (!(steps[i].flows & 1u << e->rq->flow) || (e->answered && !(steps[i].flows & ANSWERED)))
            continue;
        e->step = steps[i].name;
        int64_t began_us = clock_mono_us();
        e->steps = times_text(e, &times);
        err = e->steps ? steps[i].run(e) : enrolment_no_memory(e);
        if (!err)
            e->reached = steps[i].reached;
        int64_t took_us = clock_mono_us() - began_us;
        metrics_step(e->service->metrics, (unsigned)i, steps[i].name, took_us);
        time_add(e, &times, err, took_us);
    }
    const char *all = times_text(e, &times);
    if (all)
        e->steps = all;
    return err;
}

/* Faults that say nothing of the attempt itself stay out of the trail; that one waits is in it
 * already. That a claim asks too often is what a leak looks like. */
static bool belongs_in_trail(enum fault_code code)
{
    return code != FAULT_AUTH_REQUIRED && code != FAULT_DB_UNAVAILABLE &&
           code != FAULT_JOURNAL_UNAVAILABLE && code != FAULT_OVERLOADED &&
           code != FAULT_RATE_LIMITED && code != FAULT_APPROVAL_PENDING &&
           code != FAULT_CERT_PENDING && code != FAULT_TPM_CHALLENGE;
}

/* Group keys are many devices': the registry finds out whether this one is of the group. */
static void failure_group(struct buf *b, const struct enrolment *e)
{
    if (e->credential != CREDENTIAL_ENROLLMENT || !e->enrollment.grouped)
        return;
    json_int(b, "group_id", e->enrollment.id);
    json_text(b, "registration_id", e->registration_id);
}

static void failure_certificate(struct buf *b, const struct enrolment *e)
{
    struct bytes fp = bytes_of(e->peer.leaf.fingerprint, SHA256_BYTES);
    if (e->credential < CREDENTIAL_FACTORY && !enrolment_by_certificate(e))
        return;
    if (e->credential == CREDENTIAL_CLAIM) {
        fp = e->claim_fingerprint;
        json_int(b, "claim_id", e->claim.id);
        json_text(b, "claim", e->claim.name);
    }
    json_raw(b, "fingerprint", arena_printf(e->arena, "\"\\\\x%s\"", text_hex(e->arena, fp)));
}

/* As far as anybody has said it; a registration says it among its parameters. */
static const char *claimed_serial(const struct enrolment *e)
{
    const struct enrollment_request *rq = e->rq;
    for (size_t i = 0; i < rq->parameter_count && e->settings; i++) {
        if (strcmp(rq->parameters[i].name, e->settings->serial_parameter) == 0)
            return arena_printf(e->arena, "%.64s", rq->parameters[i].value);
    }
    if (rq->registration_id)
        return rq->registration_id;
    return rq->claimed_serial ? rq->claimed_serial : e->known.serial;
}

/* FAULT_KEY_CONFLICT says what another request did, the rest what this device did. */
static void failure_write(struct buf *b, const struct enrolment *e)
{
    const struct enrollment_request *rq = e->rq;
    bool by_token = e->credential == CREDENTIAL_TOKEN;
    json_begin_object(b);
    json_text(b, "request_id", rq->request_id);
    json_text(b, "protocol", rq->protocol);
    json_text(b, "operation", rq->operation);
    json_text(b, "credential", credential_name(e->credential));
    json_text(b, "source", rq->source);
    json_text(b, "outcome", fault_row(e->fault->code)->code);
    json_text(b, "detail", e->fault->detail);
    json_text(b, "reached", e->reached);
    json_bool(b, "counts", fault_row(e->fault->code)->counts);
    json_bool(b, "proven", e->proven && !by_token);
    json_text(b, "serial", e->serial_known ? e->serial.given : claimed_serial(e));
    if (e->serial_known)
        json_text(b, "serial_canonical", e->serial.canonical);
    if (e->template) {
        json_int(b, "product_id", e->template->product->id);
        json_int(b, "template_id", e->template->id);
        json_int(b, "template_version", e->template->version);
        json_text(b, "template", e->template->label);
        json_int(b, "quarantine_failures", e->settings->quarantine_failures);
    }
    if (by_token)
        json_raw(b, "token_hash",
                 arena_printf(e->arena, "\"\\\\x%s\"",
                              text_hex(e->arena, bytes_of(e->token_hash, SHA256_BYTES))));
    failure_certificate(b, e);
    failure_group(b, e);
    json_raw(b, "steps", e->steps);
    json_end_object(b);
}

/* A token that does not prove its device and was refused for itself or its serial, and a key or
 * certificate that is no enrollment's: trying them is dear. */
static void guess_count(const struct enrolment *e)
{
    bool guess = e->credential == CREDENTIAL_TOKEN ||
                 (e->credential == CREDENTIAL_NONE && e->rq->registration_id);
    if (guess && !e->proven &&
        (fault_row(e->fault->code)->seen == FAULT_SEEN_HIDDEN ||
         e->fault->code == FAULT_TPM_CERTIFICATE))
        (void)source_limit_take(e->service->token_limit, e->rq->source, clock_mono_us());
}

/* The refusal may have been one too many. The journal has it before the device hears of it, or when
 * it can be written again. */
static void quarantine_journal(const struct enrolment *e)
{
    struct fault fault = {0};
    if (journal_drain(e->service->journal, &fault))
        log_text(LOG_WARN, "journal.quarantine_waits", "request_id", e->rq->request_id);
}

/* The refusal goes into the trail in a transaction of its own. */
void enrolment_failed(const struct enrolment *e)
{
    if (!belongs_in_trail(e->fault->code) || e->rq->vouch == VOUCH_HEARSAY)
        return;
    if (!e->proven && !source_limit_take(e->service->trail_limit, e->rq->source, clock_mono_us()))
        return;
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_FAILURE_BYTES);
    failure_write(&b, e);
    enum err err = b.overflow ? ERR_INVALID : enrol_failed(e->service->db, buf_text(&b));
    if (err)
        log_text(LOG_ERROR, "trail.not_written", "request_id", e->rq->request_id);
    if (!err && fault_row(e->fault->code)->counts)
        quarantine_journal(e);
}

enum err pipeline_run(struct service *service, const struct enrollment_request *rq,
                      struct arena *arena, struct enrollment_result *ret_result,
                      struct enrollment_report *ret_report, struct fault *fault)
{
    *ret_report = (struct enrollment_report){
        .credential = "none", .serial = rq->claimed_serial, .step = "begin"};
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    enum err err = catalog_clock_check(service->catalog, service->max_clock_skew_s, fault);
    if (err)
        return err;
    struct enrolment e = {.service = service,
                          .snapshot = snapshot,
                          .rq = rq,
                          .arena = arena,
                          .fault = fault,
                          .reached = "UNPROVISIONED",
                          .step = "begin",
                          .steps = "[]"};
    err = enrolment_run(&e);
    if (err) {
        guess_count(&e);
        enrolment_failed(&e);
        admit_failed(&e);
    }
    csr_done(&e.csr);
    ret_report->credential = credential_name(e.credential);
    ret_report->proven = e.proven;
    ret_report->step = e.step;
    ret_report->challenge = e.challenge;
    ret_report->question = e.question;
    ret_report->enrollment_id = e.enrollment.id;
    ret_report->attestation = e.enrollment.attestation;
    if (enrolment_by_certificate(&e)) {
        ret_report->leaf = e.peer.leaf;
        ret_report->signer_id = e.peer.anchor_id;
    }
    if (e.template)
        ret_report->template = arena_strdup(arena, e.template->label);
    if (e.serial_known)
        ret_report->serial = arena_strdup(arena, e.serial.given);
    if (!err)
        *ret_result = e.result;
    return err;
}
