/* What was committed goes into the journal before the device has it: the registry may be lost, and
 * the device must be known all the same. Who was not told because the journal failed asks again. */
#include "base/base64.h"
#include "base/json_out.h"
#include "base/text.h"
#include "enroll/journal.h"
#include "enroll/steps.h"
#include "store/journal.h"

enum { MAX_ENTRY_BYTES = 250 * 1024 };

static void certificate_write(struct buf *b, const struct enrolment *e, struct bytes der)
{
    const struct catalog_ca *ca = snapshot_ca(e->snapshot, enrolment_issuer(e));
    uint8_t fingerprint[SHA256_BYTES];
    if (digest_sha256(der, fingerprint) == ERR_OK)
        json_hex(b, "fingerprint", bytes_of(fingerprint, SHA256_BYTES));
    if (ca && !e->result.replayed) /* that of a replay may have been another */
        json_text(b, "issuer", ca->name);
    json_key(b, "certificate");
    buf_add_char(b, '"');
    base64_encode(b, der);
    buf_add_char(b, '"');
}

/* What a renewal leaves as it is. */
static void registration_write(struct buf *b, const struct enrolment *e)
{
    const struct registration *g = &e->registration;
    json_text(b, "thing_name", g->thing_name);
    json_text(b, "thing_type", g->thing_type);
    json_text(b, "billing_group", g->billing_group);
    json_raw(b, "attributes", g->attributes ? g->attributes : "{}");
    json_raw(b, "configuration", g->device_configuration ? g->device_configuration : "{}");
    json_raw(b, "groups", e->groups);
    json_raw(b, "policies", e->policies);
    json_bool(b, "inactive", g->certificate_inactive);
}

/* Which credential it was, for who asks in years: a token by its SHA-256, as the registry has it.
 */
static void credential_write(struct buf *b, const struct enrolment *e)
{
    json_text(b, "credential", credential_name(e->credential));
    if (e->credential == CREDENTIAL_TOKEN)
        json_hex(b, "by", bytes_of(e->token_hash, SHA256_BYTES));
    else if (e->credential == CREDENTIAL_CLAIM)
        json_text(b, "by", e->claim.name);
    else if (e->credential == CREDENTIAL_ENROLLMENT)
        json_text(b, "by", e->enrollment.name);
    else if (e->credential == CREDENTIAL_FACTORY)
        json_hex(b, "by", bytes_of(e->peer.leaf.fingerprint, SHA256_BYTES));
    json_text(b, "source", e->rq->source);
}

static void issued_write(struct buf *b, const struct enrolment *e)
{
    bool registered = e->rq->flow == FLOW_ADMIT && e->peer_ca->kind == CATALOG_REGISTERED;
    json_text(b, "kind", "issued");
    json_text(b, "request", e->rq->request_id);
    json_text(b, "product", e->template->product->name);
    json_text(b, "serial", e->serial.given);
    json_text(b, "canonical", e->serial.canonical);
    json_text(b, "template", e->template->label);
    json_text(b, "protocol", e->rq->protocol);
    credential_write(b, e);
    json_text(b, "purpose", "operational");
    json_text(b, "origin", registered ? "registered" : "issued");
    json_text(b, "verify", verify_mode_name(e->settings->verify));
    if (e->credential == CREDENTIAL_DEVICE)
        json_hex(b, "supersedes", bytes_of(e->peer.leaf.fingerprint, SHA256_BYTES));
    else
        registration_write(b, e);
    certificate_write(b, e, e->result.certificate);
}

/* Nobody has named a device for it yet; without a registration it ends within the hour. */
static void created_write(struct buf *b, const struct enrolment *e)
{
    json_text(b, "kind", "created");
    json_text(b, "request", e->rq->request_id);
    json_text(b, "claim", e->claim.name);
    certificate_write(b, e, e->result.certificate);
}

/* What was answered before says nothing of the certificate; the registry does. */
static enum err answered_entry(const struct enrolment *e, const char **ret_entry)
{
    bool admitted = e->rq->flow == FLOW_ADMIT;
    return journal_issued_before(
        e->service->db, bytes_of(e->peer.leaf.fingerprint, admitted ? SHA256_BYTES : 0),
        bytes_of(e->ownership_hash, admitted ? 0 : SHA256_BYTES), e->arena, ret_entry);
}

static enum err entry_make(const struct enrolment *e, const char **ret_entry)
{
    _cleanup_(buf_donep) struct buf b = {0};
    if (e->answered)
        return answered_entry(e, ret_entry);
    buf_init(&b, MAX_ENTRY_BYTES);
    json_begin_object(&b);
    if (e->rq->flow == FLOW_CREATE)
        created_write(&b, e);
    else
        issued_write(&b, e);
    json_end_object(&b);
    *ret_entry = b.overflow ? NULL : arena_strdup(e->arena, buf_text(&b));
    return *ret_entry ? ERR_OK : ERR_NO_MEMORY;
}

enum err enrolment_entry(struct enrolment *e, const char **ret_entry)
{
    enum err err = entry_make(e, ret_entry);
    if (err == ERR_UNAVAILABLE)
        return fault_set(e->fault, FAULT_DB_UNAVAILABLE, "reading for the journal");
    return err ? fault_set(e->fault, FAULT_INTERNAL, "writing for the journal: %s", err_name(err))
               : ERR_OK;
}

enum err step_journal(struct enrolment *e)
{
    struct journal *journal = e->service->journal;
    const char *entry = NULL;
    int64_t epoch = 0, age_us = 0;
    if (!journal)
        return ERR_OK;
    enum err err = enrolment_entry(e, &entry);
    if (err)
        return err;
    catalog_look(e->service->catalog, &epoch, &age_us);
    return entry ? journal_write(journal, epoch, &entry, 1, e->fault) : ERR_OK;
}
