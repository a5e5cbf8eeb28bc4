#include "enroll/factory.h"

#include <string.h>

#include "base/id.h"
#include "enroll/journal.h"
#include "enroll/pipeline.h"
#include "enroll/steps.h"

enum { REASON_BYTES = 256, MOST_TRIES = 3 };

/* A unit on its way; what is recorded of it points in here. */
struct work {
    struct enrollment_request rq;
    char request_id[ID_TEXT_BYTES];
    struct enrolment e;
    struct fault fault;
    struct factory_unit *unit;
};

struct run {
    struct service *service;
    const struct factory_job *job;
    struct arena *arena;
    struct snapshot *snapshot;
    const struct catalog_template *template;
    struct fault *fault; /* of all */
    struct work **works; /* of those that are to be recorded, as records */
    struct enrol_record *records;
    struct enrol_outcome *outcomes;
    size_t count;
};

enum err factory_refused(enum err e, const char *message, struct fault *fault)
{
    size_t code = strcspn(message, "\n");
    char name[DB_MAX_MESSAGE_BYTES];
    if (e == ERR_UNAVAILABLE)
        return fault_set(fault, FAULT_DB_UNAVAILABLE, "%s", message);
    if (e == ERR_CONFLICT)
        return fault_set(fault, FAULT_DEVICE_BUSY, "others enrol the same devices");
    if (e != ERR_DENIED)
        return fault_set(fault, FAULT_INTERNAL, "%s: %s", err_name(e), message);
    memcpy(name, message, code);
    name[code] = '\0';
    return fault_set(fault, fault_parse(name), "%s", message[code] ? message + code + 1 : "");
}

static enum err no_memory(const struct run *r)
{
    return fault_set(r->fault, FAULT_INTERNAL, "out of memory");
}

/* Faults of the server are no unit's: the request ends. */
static enum err unit_refuse(struct run *r, struct work *w)
{
    const struct fault_row *row = fault_row(w->fault.code);
    if (row->http_status >= 500 && w->fault.code != FAULT_DEVICE_BUSY) {
        *r->fault = w->fault;
        return ERR_DENIED;
    }
    enrolment_failed(&w->e);
    w->unit->result = FACTORY_REJECTED;
    w->unit->reason = arena_printf(r->arena, "%s: %.*s", row->code, REASON_BYTES, w->fault.detail);
    return w->unit->reason ? ERR_OK : no_memory(r);
}

static struct work *work_new(struct run *r, struct factory_unit *unit)
{
    struct work *w = arena_alloc(r->arena, sizeof(*w));
    if (!w || id_new(w->request_id))
        return NULL;
    w->unit = unit;
    w->rq = (struct enrollment_request){
        .flow = FLOW_CERTIFY,
        .request_id = w->request_id,
        .since_us = r->job->since_us,
        .protocol = r->job->protocol,
        .operation = r->job->operation,
        .source = r->job->source,
        .claimed_serial = unit->serial,
        .csr = unit->csr,
        .vouch = VOUCH_AHEAD,
    };
    w->e = (struct enrolment){
        .service = r->service,
        .snapshot = r->snapshot,
        .rq = &w->rq,
        .arena = r->arena,
        .fault = &w->fault,
        .reached = "UNPROVISIONED",
        .step = "begin",
        .steps = "[]",
        .credential = CREDENTIAL_STATION,
        .template = r->template,
        .settings = template_settings(r->template->compiled),
    };
    return w;
}

/* Up to the signature. */
static enum err unit_sign(struct run *r, struct factory_unit *unit)
{
    struct work *w = work_new(r, unit);
    if (!w)
        return no_memory(r);
    enum err e = enrolment_run(&w->e);
    if (!e)
        e = enrolment_record(&w->e, &r->records[r->count]);
    if (e) {
        csr_done(&w->e.csr);
        return unit_refuse(r, w);
    }
    r->works[r->count++] = w; /* its record points at the request's key */
    return ERR_OK;
}

static enum err unit_settle(struct run *r, size_t i)
{
    const struct enrol_outcome *o = &r->outcomes[i];
    struct work *w = r->works[i];
    if (strcmp(o->code, "ok") == 0 || strcmp(o->code, "replayed") == 0) {
        bool replayed = o->certificate.len > 0;
        w->unit->result = replayed ? FACTORY_REPLAYED : FACTORY_ISSUED;
        w->unit->certificate = replayed ? o->certificate : w->e.issued.der;
        return ERR_OK;
    }
    (void)fault_set(&w->fault, fault_parse(o->code), "%s", o->detail);
    return unit_refuse(r, w);
}

/* Into the journal before any device has it; and what was revoked to make place. */
static enum err journal(struct run *r)
{
    struct journal *journal = r->service->journal;
    const char **entries = arena_alloc(r->arena, r->count * sizeof(*entries));
    int64_t epoch = 0, age_us = 0;
    size_t n = 0;
    enum err e = entries ? ERR_OK : no_memory(r);
    if (!journal)
        return ERR_OK;
    for (size_t i = 0; i < r->count && !e; i++) {
        struct work *w = r->works[i];
        if (w->unit->result == FACTORY_REJECTED)
            continue;
        w->e.result.certificate = w->unit->certificate;
        w->e.result.replayed = w->unit->result == FACTORY_REPLAYED;
        e = enrolment_entry(&w->e, &entries[n]);
        n += !e && entries[n];
        if (e)
            *r->fault = w->fault;
    }
    catalog_look(r->service->catalog, &epoch, &age_us);
    if (!e && n > 0)
        e = journal_write(journal, epoch, entries, n, r->fault);
    return e ? e : journal_drain(journal, r->fault);
}

/* Another request that was faster with a serial or key is seen at the next try. */
static enum err record(struct run *r)
{
    char message[DB_MAX_MESSAGE_BYTES] = "";
    enum err e = ERR_CONFLICT;
    for (int i = 0; i < MOST_TRIES && e == ERR_CONFLICT; i++)
        e = factory_certify(r->service->db, r->job->op, r->job->scope, r->records, r->count,
                            r->job->again, r->arena, r->outcomes, message);
    if (e)
        return factory_refused(e, message, r->fault);
    for (size_t i = 0; i < r->count && !e; i++)
        e = unit_settle(r, i);
    return e ? e : journal(r);
}

static enum err run_begin(struct run *r, size_t count)
{
    r->works = arena_alloc(r->arena, count * sizeof(struct work *));
    r->records = arena_alloc(r->arena, count * sizeof(*r->records));
    r->outcomes = arena_alloc(r->arena, count * sizeof(*r->outcomes));
    if (!r->works || !r->records || !r->outcomes)
        return no_memory(r);
    r->template = snapshot_template_by_id(r->snapshot, r->job->scope->template_id);
    return r->template ? ERR_OK
                       : fault_set(r->fault, FAULT_TEMPLATE_UNKNOWN,
                                   "the template of batch %s is disabled", r->job->scope->batch);
}

/* Copied: who asked has no part in the snapshot, which may be gone when the answer is written. */
static enum err chain_take(const struct run *r, struct factory_chain *ret)
{
    *ret = (struct factory_chain){.count = 0};
    const struct catalog_ca *ca =
        r->count > 0 ? snapshot_ca(r->snapshot, issuer_id(r->works[0]->e.issuer)) : NULL;
    size_t count =
        ca ? snapshot_chain(r->snapshot, ca->subject_der, ret->der, FACTORY_MAX_CHAIN) : 0;
    for (size_t i = 0; i < count; i++) {
        const void *copy = arena_copy(r->arena, ret->der[i].data, ret->der[i].len);
        if (!copy)
            return no_memory(r);
        ret->der[i] = bytes_of(copy, ret->der[i].len);
    }
    ret->count = count;
    return ERR_OK;
}

enum err factory_units_certify(struct service *service, const struct factory_job *job,
                               struct factory_unit *units, size_t count, struct arena *arena,
                               struct factory_chain *ret_chain, struct fault *fault)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    struct run r = {
        .service = service, .job = job, .arena = arena, .snapshot = snapshot, .fault = fault};
    enum err e = catalog_clock_check(service->catalog, service->max_clock_skew_s, fault);
    if (!e)
        e = run_begin(&r, count);
    for (size_t i = 0; i < count && !e; i++)
        e = unit_sign(&r, &units[i]);
    if (!e && r.count > 0)
        e = record(&r);
    if (!e)
        e = chain_take(&r, ret_chain);
    for (size_t i = 0; i < r.count; i++)
        csr_done(&r.works[i]->e.csr);
    return e;
}
