/* Everything an enrolment consumes and creates, in one transaction. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json_out.h"
#include "enroll/steps.h"
#include "store/commit.h"

enum { MAX_REGISTRATION_BYTES = 64 * 1024 };

static const char *groups_json(struct enrolment *e)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_REGISTRATION_BYTES);
    json_begin_array(&b);
    for (size_t i = 0; i < e->registration.group_count; i++)
        json_item_text(&b, e->registration.groups[i]);
    json_end_array(&b);
    return b.overflow ? NULL : arena_strdup(e->arena, buf_text(&b));
}

static const char *policies_json(struct enrolment *e)
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_REGISTRATION_BYTES);
    json_begin_array(&b);
    for (size_t i = 0; i < e->registration.policy_count; i++) {
        json_begin_object(&b);
        json_text(&b, "name", e->registration.policies[i].name);
        json_raw(&b, "document", e->registration.policies[i].document);
        json_end_object(&b);
    }
    json_end_array(&b);
    return b.overflow ? NULL : arena_strdup(e->arena, buf_text(&b));
}

static void record_claim(const struct enrolment *e, struct enrol_record *r)
{
    r->claim_id = e->claim.id;
    r->claim_name = e->claim.name;
    r->claim_late = e->expired.code != FAULT_NONE;
    r->client_id = e->rq->client_id;
    if (e->rq->flow == FLOW_ENROL)
        return;
    r->ownership_hash = bytes_of(e->ownership_hash, SHA256_BYTES);
    if (e->rq->flow == FLOW_REGISTER)
        r->parameters_hash = bytes_of(e->parameters_hash, SHA256_BYTES);
}

void enrolment_origin(const struct enrolment *e, struct enrol_record *r)
{
    r->request_id = e->rq->request_id;
    r->asked_us = catalog_registry_us(e->service->catalog, e->rq->since_us);
    r->protocol = e->rq->protocol;
    r->operation = e->rq->operation;
    r->credential = credential_name(e->credential);
    r->source = e->rq->source;
    r->product_id = e->template->product->id;
    r->template_id = e->template->id;
    r->template_version = e->template->version;
    r->template_label = e->template->label;
    r->steps = e->steps;
    if (e->serial_known) {
        r->serial = e->serial.given;
        r->serial_canonical = e->serial.canonical;
    }
    if (e->credential == CREDENTIAL_TOKEN)
        r->token_hash = bytes_of(e->token_hash, SHA256_BYTES);
    if (e->credential == CREDENTIAL_CLAIM)
        record_claim(e, r);
    if (e->credential == CREDENTIAL_ENROLLMENT) {
        r->enrollment_id = e->enrollment.id;
        r->registration_id = e->registration_id;
    }
}

static void record_peer(const struct enrolment *e, struct enrol_record *r)
{
    const struct cert_info *leaf = &e->peer.leaf;
    if (enrolment_by_certificate(e))
        r->peer_fingerprint = bytes_of(leaf->fingerprint, SHA256_BYTES);
    if (e->credential != CREDENTIAL_FACTORY && e->credential != CREDENTIAL_DEVICE)
        return;
    r->peer_fingerprint = bytes_of(leaf->fingerprint, SHA256_BYTES);
    r->peer_spki = bytes_of(leaf->spki_sha256, SHA256_BYTES);
    r->peer_der = e->rq->chain[0];
    r->peer_serial_number = leaf->serial_number;
    r->peer_ca = e->peer_ca->id;
    r->peer_not_before = leaf->not_before_s;
    r->peer_not_after = leaf->not_after_s;
}

int64_t enrolment_issuer(const struct enrolment *e)
{
    switch (e->rq->flow) {
    case FLOW_REGISTER:
        return e->owned.issuer_id;
    case FLOW_ADMIT:
        return e->peer_ca->id;
    case FLOW_ENROL:
    case FLOW_CREATE:
    case FLOW_CERTIFY:
    case FLOW_ASSIGN:
    case FLOW_LOOKUP:
        break;
    }
    return issuer_id(e->issuer);
}

void enrolment_certificate(const struct enrolment *e, struct enrol_record *r)
{
    r->spki = bytes_of(e->csr.spki_sha256, SHA256_BYTES);
    r->fingerprint = bytes_of(e->issued.fingerprint, SHA256_BYTES);
    r->certificate = e->issued.der;
    r->serial_number = bytes_of(e->issued.serial_number, ISSUER_SERIAL_BYTES);
    r->issuer_id = enrolment_issuer(e);
    r->not_before = e->issued.not_before_s;
    r->not_after = e->issued.not_after_s;
    if (e->rq->flow == FLOW_ADMIT)
        r->serial_number = e->peer.leaf.serial_number;
}

static enum err record_registration(struct enrolment *e, struct enrol_record *r)
{
    const struct registration *g = &e->registration;
    r->thing_name = g->thing_name;
    r->thing_type = g->thing_type;
    r->billing_group = g->billing_group;
    r->attributes = g->attributes ? g->attributes : "{}";
    r->attributes_override = override_mode_name(g->attributes_override);
    r->type_override = override_mode_name(g->type_override);
    r->groups_override = override_mode_name(g->groups_override);
    r->groups = e->groups = groups_json(e);
    r->policies = e->policies = policies_json(e);
    r->configuration = g->device_configuration ? g->device_configuration : "{}";
    r->inactive = g->certificate_inactive;
    return r->groups && r->policies ? ERR_OK : enrolment_no_memory(e);
}

static void record_settings(const struct enrolment *e, struct enrol_record *r)
{
    const struct template_settings *s = e->settings;
    r->own = e->own; /* allowlist and operator admitted it once */
    r->allowlist_required =
        s->allowlist_required && !e->own && (e->credential != CREDENTIAL_JIT || s->allowlist_said);
    r->replace = s->reprovision == REPROVISION_REPLACE;
    r->verify = verify_mode_name(s->verify);
    r->verify_within_s =
        e->rq->vouch >= VOUCH_AHEAD ? e->issued.not_after_s - clock_wall_s() : s->verify_within_s;
    r->renew_before_s = s->renew_before_s;
    r->grace_s = s->grace_s;
    r->replay_s = s->replay_s;
    r->approval = s->approval_required && e->credential != CREDENTIAL_STATION && !e->own;
    r->server_key = e->rq->server_key;
    r->hearsay = e->rq->vouch == VOUCH_HEARSAY;
}

enum err enrolment_judged(struct enrolment *e, enum err err, const struct enrol_outcome *o,
                          const char *doing)
{
    if (err)
        return fault_set(e->fault, err == ERR_UNAVAILABLE ? FAULT_DB_UNAVAILABLE : FAULT_INTERNAL,
                         "%s: %s", doing, err_name(err));
    if (strcmp(o->code, "ok") == 0 || strcmp(o->code, "replayed") == 0)
        return ERR_OK;
    if (strcmp(o->code, "approval.pending") == 0)
        e->fault->retry_after_s = (int)e->settings->approval_poll_s;
    return fault_set(e->fault, fault_parse(o->code), "%s", o->detail);
}

static const char *member_text(struct enrolment *e, const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? arena_strdup(e->arena, text) : NULL;
}

enum err enrolment_answer_again(struct enrolment *e, const struct enrol_outcome *o)
{
    json_t *answer = json_loads(o->answer, 0, NULL);
    char *configuration = json_dumps(json_object_get(answer, "configuration"), JSON_COMPACT);
    e->result.replayed = true;
    e->answered = true;
    e->result.serial = member_text(e, answer, "serial");
    e->result.thing_name = member_text(e, answer, "thing_name");
    e->result.configuration = configuration ? arena_strdup(e->arena, configuration) : NULL;
    free(configuration);
    json_decref(answer);
    return e->result.serial && e->result.configuration ? ERR_OK : enrolment_no_memory(e);
}

static enum err outcome_judge(struct enrolment *e, const struct enrol_outcome *o)
{
    bool replayed = strcmp(o->code, "replayed") == 0;
    e->proven = o->proven;
    enum err err = enrolment_judged(e, ERR_OK, o, "recording");
    if (err)
        return err;
    if (o->answer)
        return enrolment_answer_again(e, o);
    e->result.certificate = replayed ? o->certificate : e->issued.der;
    e->result.replayed = replayed;
    e->result.serial = arena_strdup(e->arena, e->serial.given);
    e->result.state = o->state;
    /* it may be the serial itself, which ends with the enrolment */
    e->result.thing_name =
        e->registration.thing_name ? arena_strdup(e->arena, e->registration.thing_name) : NULL;
    e->result.configuration = e->registration.device_configuration;
    return ERR_OK;
}

enum err enrolment_record(struct enrolment *e, struct enrol_record *r)
{
    enrolment_origin(e, r);
    record_peer(e, r);
    if (e->rq->flow != FLOW_ASSIGN)
        enrolment_certificate(e, r);
    record_settings(e, r);
    return record_registration(e, r);
}

enum err step_record(struct enrolment *e)
{
    struct enrol_record r = {0};
    struct enrol_outcome outcome = {0};
    if (e->rq->flow == FLOW_CREATE)
        return create_record(e);
    enum err err = enrolment_record(e, &r);
    if (err)
        return err;
    err = committer_record(e->service->committer, &r, e->arena, &outcome);
    if (err == ERR_UNAVAILABLE)
        return fault_set(e->fault, FAULT_DB_UNAVAILABLE, "%s",
                         outcome.detail ? outcome.detail : "not recorded");
    if (err)
        return fault_set(e->fault, FAULT_INTERNAL, "recording: %s %s", err_name(err),
                         outcome.detail ? outcome.detail : "");
    return outcome_judge(e, &outcome);
}
