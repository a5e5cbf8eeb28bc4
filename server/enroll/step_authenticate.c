/* Who is asking: a bootstrap token, a certificate chain or the key of the connection. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/limit.h"
#include "base/log.h"
#include "enroll/attest.h"
#include "enroll/pipeline.h"
#include "enroll/steps.h"
#include "enroll/unknown_issuer.h"

/* Its CA has registered devices: is it one of theirs? ERR_NOT_FOUND: it is not. */
static enum err registered_certificate(struct enrolment *e)
{
    struct bytes fp = bytes_of(e->peer.leaf.fingerprint, SHA256_BYTES);
    enum err err = enrol_peer_get(e->service->db, fp, e->arena, &e->owner);
    if (!err && !e->owner.operational)
        return ERR_NOT_FOUND;
    if (!err)
        e->credential = CREDENTIAL_DEVICE;
    return err && err != ERR_NOT_FOUND ? fault_set(e->fault, FAULT_DB_UNAVAILABLE,
                                                   "looking up the certificate: %s", err_name(err))
                                       : err;
}

/* A renewal may be the first contact of a certificate whose CA registers devices. */
static enum err registered_now(struct enrolment *e)
{
    struct enrollment_request rq = *e->rq;
    struct enrollment_result result;
    struct enrollment_report report;
    rq.flow = FLOW_ADMIT;
    rq.operation = "jitp";
    rq.renew = false;
    enum err err = pipeline_run(e->service, &rq, e->arena, &result, &report, e->fault);
    return err ? err : registered_certificate(e);
}

/* The registry knows whose certificate it is, unless it was lost. */
static enum err device_certificate(struct enrolment *e)
{
    struct bytes fp = bytes_of(e->peer.leaf.fingerprint, SHA256_BYTES);
    e->credential = CREDENTIAL_DEVICE;
    enum err err = enrol_peer_get(e->service->db, fp, e->arena, &e->owner);
    if (err == ERR_NOT_FOUND && e->rq->renew && catalog_ca_trusts(e->peer_ca, clock_wall_s()))
        err = registered_now(e);
    if (err == ERR_NOT_FOUND)
        return fault_set(e->fault, FAULT_CERT_UNKNOWN,
                         "our CA signed %s, the registry does not have it",
                         e->peer.leaf.subject_text);
    if (err && err != ERR_DENIED)
        return fault_set(e->fault, FAULT_DB_UNAVAILABLE, "looking up the certificate: %s",
                         err_name(err));
    return err;
}

/* The certificate of a device, or one that may only ask for another. */
static enum err factory_certificate(struct enrolment *e)
{
    enum err err = e->peer_ca->has_devices ? registered_certificate(e) : ERR_NOT_FOUND;
    if (err == ERR_NOT_FOUND && e->rq->renew && e->peer_ca->has_devices)
        err = registered_now(e);
    if (err != ERR_NOT_FOUND)
        return err;
    e->credential = CREDENTIAL_FACTORY;
    return ERR_OK;
}

/* ERR_NOT_FOUND: it is none. */
static enum err claim_certificate(struct enrolment *e, struct bytes fingerprint)
{
    enum err err = claims_find(e->service->claims, fingerprint, e->arena, &e->claim);
    if (err == ERR_NOT_FOUND)
        return err;
    if (err)
        return fault_set(e->fault, FAULT_DB_UNAVAILABLE, "looking up the claim: %s", err_name(err));
    e->credential = CREDENTIAL_CLAIM;
    e->claim_fingerprint = fingerprint;
    return ERR_OK;
}

/* Claims made here say so; others are looked for below registered CAs that are known to have some.
 */
static enum err known_certificate(struct enrolment *e)
{
    const char *urn = e->peer.leaf.urn;
    struct bytes fp = bytes_of(e->peer.leaf.fingerprint, SHA256_BYTES);
    bool ours = e->peer_ca->kind != CATALOG_REGISTERED;
    bool perhaps =
        ours ? urn && strncmp(urn, CLAIM_URN, strlen(CLAIM_URN)) == 0 : e->peer_ca->has_claims;
    enum err err = perhaps ? claim_certificate(e, fp) : ERR_NOT_FOUND;
    if (err != ERR_NOT_FOUND)
        return err;
    return ours ? device_certificate(e) : factory_certificate(e);
}

static enum err certificate_authenticate(struct enrolment *e)
{
    const struct enrollment_request *rq = e->rq;
    enum err err = chain_verify(snapshot_trust(e->snapshot), e->arena, rq->chain, rq->chain_count,
                                clock_wall_s(), &e->peer, e->fault);
    if (err && e->peer.leaf_expired_s > 0) {
        /* the template, not known yet, may bear it */
        e->expired = *e->fault;
        *e->fault = (struct fault){0};
    } else if (err) {
        if (e->fault->code == FAULT_NONE)
            return fault_set(e->fault, FAULT_INTERNAL, "verifying the chain: %s", err_name(err));
        unknown_issuer_note(e);
        return err;
    }
    e->peer_ca = snapshot_ca(e->snapshot, e->peer.anchor_id);
    if (!e->peer_ca)
        return fault_set(e->fault, FAULT_INTERNAL, "the chain's anchor is not in the catalog");
    if (e->rq->flow != FLOW_ADMIT)
        return known_certificate(e);
    e->credential = CREDENTIAL_JIT;
    return ERR_OK;
}

static enum err credential_find(struct enrolment *e)
{
    const struct enrollment_request *rq = e->rq;
    if (rq->claim.len > 0) {
        enum err err = claim_certificate(e, rq->claim);
        return err == ERR_NOT_FOUND ? fault_set(e->fault, FAULT_CLAIM_REQUIRED,
                                                "the certificate the broker saw is no claim")
                                    : err;
    }
    if (rq->token && !rq->renew) {
        e->credential = CREDENTIAL_TOKEN;
        /* whether a token is good is known when it is recorded; guesses must not cost a signature
         * each */
        if (!source_limit_left(e->service->token_limit, rq->source, clock_mono_us()))
            return fault_set(e->fault, FAULT_RATE_LIMITED,
                             "too many refused tokens from this source");
        if (digest_sha256(bytes_text(rq->token), e->token_hash))
            return fault_set(e->fault, FAULT_INTERNAL, "digest");
        return ERR_OK;
    }
    if (rq->chain_count > 0)
        return certificate_authenticate(e);
    if (rq->psk_identity && !rq->renew)
        return attest_psk(e);
    return fault_set(e->fault, FAULT_AUTH_REQUIRED,
                     rq->renew ? "a renewal is authenticated by the certificate it renews, in TLS"
                               : "no token and no client certificate");
}

/* The two steps of AWS are for claims; so is nothing that a claim must not do. */
enum err step_authenticate(struct enrolment *e)
{
    if (e->rq->registration_id)
        return step_attest(e);
    enum err err = credential_find(e);
    if (err)
        return err;
    bool claim = e->credential == CREDENTIAL_CLAIM;
    bool for_claims = e->rq->flow == FLOW_CREATE || e->rq->flow == FLOW_REGISTER;
    if (!claim && for_claims)
        return fault_set(e->fault, FAULT_CLAIM_REQUIRED, "the credential is a %s",
                         credential_name(e->credential));
    if (claim && e->rq->renew)
        return fault_set(e->fault, FAULT_CERT_PURPOSE, "a claim certificate cannot renew");
    return ERR_OK;
}
