/* Whether a certificate that came by itself becomes the device's own: what the registry knows of
 * it, and what its CA does with those nobody knows (just-in-time provisioning and registration). */
#include <jansson.h>
#include <string.h>

#include "base/json_out.h"
#include "base/log.h"
#include "base/text.h"
#include "enroll/steps.h"

enum { MAX_CONTACT_BYTES = 64 * 1024, PENDING_RETRY_S = 10 };

static void bytea_write(struct buf *b, const char *name, struct bytes value, struct arena *arena)
{
    const char *hex = text_hex(arena, value);
    json_text(b, name, hex ? arena_printf(arena, "\\x%s", hex) : NULL);
}

/* A contact that gives no device, with the reason. */
static enum err contact_record(const struct enrolment *e, const char *status, const char *reason)
{
    const struct cert_info *leaf = &e->peer.leaf;
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_CONTACT_BYTES);
    json_begin_object(&b);
    bytea_write(&b, "fingerprint", bytes_of(leaf->fingerprint, SHA256_BYTES), e->arena);
    bytea_write(&b, "certificate", e->rq->chain[0], e->arena);
    bytea_write(&b, "spki", bytes_of(leaf->spki_sha256, SHA256_BYTES), e->arena);
    bytea_write(&b, "serial_number", leaf->serial_number, e->arena);
    json_int(&b, "ca_id", e->peer_ca->id);
    json_text(&b, "subject", leaf->subject_text);
    json_int(&b, "not_before", leaf->not_before_s);
    json_int(&b, "not_after", leaf->not_after_s);
    json_text(&b, "status", status);
    json_text(&b, "reason", reason);
    json_text(&b, "request_id", e->rq->request_id);
    json_text(&b, "source", e->rq->source);
    json_end_object(&b);
    return b.overflow ? ERR_INVALID : jit_contact(e->service->db, buf_text(&b));
}

static enum err pending(struct enrolment *e)
{
    enum err err = contact_record(e, "pending", NULL);
    if (err)
        return fault_set(e->fault, FAULT_DB_UNAVAILABLE, "recording: %s", err_name(err));
    e->fault->retry_after_s = PENDING_RETRY_S;
    return fault_set(e->fault, FAULT_CERT_PENDING, "certificate of CA %s", e->peer_ca->name);
}

static bool waits_as(const struct enrolment *e, const char *status)
{
    return e->known.waiting && strcmp(e->known.waiting, status) == 0;
}

/* An operator's word is enough; otherwise what an operator said of this one goes before what its
 * CA does with all. */
static enum err judge(struct enrolment *e)
{
    bool hearsay = e->rq->vouch == VOUCH_HEARSAY;
    if ((e->rq->vouch != VOUCH_NONE && !hearsay) || waits_as(e, "active"))
        return ERR_OK;
    if (waits_as(e, "inactive"))
        return fault_set(e->fault, FAULT_CERT_INACTIVE, "it was registered so");
    if (waits_as(e, "pending"))
        return hearsay ? fault_set(e->fault, FAULT_CERT_PENDING, "it has come, and waits")
                       : pending(e);
    if (hearsay)
        return ERR_OK;
    switch (e->peer_ca->jit) {
    case JIT_OFF:
        break;
    case JIT_REGISTER:
        return pending(e);
    case JIT_PROVISION:
        return ERR_OK;
    }
    return fault_set(e->fault, FAULT_CA_NO_REGISTRATION, "CA %s", e->peer_ca->name);
}

/* The values an operator gave, now or when it was registered. */
static enum err parameters_take(struct enrolment *e)
{
    for (size_t i = 0; i < e->rq->parameter_count; i++)
        e->given[e->given_count++] = e->rq->parameters[i];
    json_t *kept = e->known.parameters ? json_loads(e->known.parameters, 0, NULL) : NULL;
    enum err err = ERR_OK;
    for (void *i = json_object_iter(kept); i && !err; i = json_object_iter_next(kept, i)) {
        const char *name = arena_strdup(e->arena, json_object_iter_key(i));
        const char *text = json_string_value(json_object_iter_value(i));
        const char *value = arena_strdup(e->arena, text ? text : "");
        if (!name || !value)
            err = enrolment_no_memory(e);
        else if (!enrolment_given(e, name) && e->given_count < ENROLLMENT_MAX_PARAMETERS)
            e->given[e->given_count++] = (struct enrollment_parameter){name, value};
    }
    json_decref(kept);
    return err;
}

/* What the registration is made of, as if it had just been signed. */
static void certificate_take(struct enrolment *e)
{
    const struct cert_info *leaf = &e->peer.leaf;
    memcpy(e->csr.spki_sha256, leaf->spki_sha256, SHA256_BYTES);
    memcpy(e->issued.fingerprint, leaf->fingerprint, SHA256_BYTES);
    e->issued.der = e->rq->chain[0];
    e->issued.not_before_s = leaf->not_before_s;
    e->issued.not_after_s = leaf->not_after_s;
}

enum err step_admit(struct enrolment *e)
{
    const struct cert_info *leaf = &e->peer.leaf;
    enum err err = jit_find(e->service->db, bytes_of(leaf->fingerprint, SHA256_BYTES),
                            bytes_of(leaf->spki_sha256, SHA256_BYTES), e->arena, &e->known);
    if (err)
        return fault_set(e->fault, FAULT_DB_UNAVAILABLE, "looking up the certificate: %s",
                         err_name(err));
    if (strcmp(e->known.code, "ok") == 0) {
        e->answered = true;
        e->result = (struct enrollment_result){.replayed = true, .serial = e->known.serial};
        return ERR_OK;
    }
    if (strcmp(e->known.code, "new") != 0)
        return fault_set(e->fault, fault_parse(e->known.code), "%s",
                         e->known.detail ? e->known.detail : "");
    if (e->peer_ca->kind != CATALOG_REGISTERED) {
        certificate_take(e);
        return admit_own(e);
    }
    err = judge(e);
    if (!err)
        err = parameters_take(e);
    e->admitting = !err;
    certificate_take(e);
    return err;
}

/* That the server is busy or the registry away says nothing of the certificate. */
void admit_failed(const struct enrolment *e)
{
    const struct fault_row *row = fault_row(e->fault->code);
    if (!e->admitting || row->retry || e->rq->vouch == VOUCH_HEARSAY)
        return;
    const char *reason = arena_printf(e->arena, "%s: %s", row->code, e->fault->detail);
    enum err err = reason ? contact_record(e, "failed", reason) : ERR_NO_MEMORY;
    if (err)
        log_text(LOG_WARN, "jit.not_recorded", "request_id", e->rq->request_id);
}
