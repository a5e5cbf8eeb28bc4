/*
 * One enrolment under way and the steps of the pipeline; one file a step. A step returns
 * ERR_DENIED after it has set the fault; whatever it finds goes into struct enrolment for the
 * next. For pipeline.c and the steps only. Threads: the request's own.
 */
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/secret.h"
#include "enroll/catalog.h"
#include "enroll/claims.h"
#include "enroll/service.h"
#include "model/enrollment.h"
#include "model/fault.h"
#include "pki/csr.h"
#include "pki/keygen.h"
#include "store/claim.h"
#include "store/enrol.h"
#include "store/jit.h"

enum credential_kind {
    CREDENTIAL_NONE,
    CREDENTIAL_TOKEN,   /* bootstrap token; judged when it is recorded */
    CREDENTIAL_FACTORY, /* certificate of a registered CA */
    CREDENTIAL_DEVICE,  /* certificate of our own */
    CREDENTIAL_CLAIM,   /* claim certificate; judged when it is recorded */
    CREDENTIAL_JIT,     /* certificate of a registered CA, to become the device's own */
};

/* "none", "token", "factory", "device", "claim", "jit". */
const char *credential_name(enum credential_kind k);

struct enrolment {
    struct service *service;
    struct snapshot *snapshot;
    const struct enrollment_request *rq;
    struct arena *arena;
    struct fault *fault;
    const char *reached; /* the last state the attempt came to */
    const char *steps;   /* JSON: the steps and their microseconds */
    const char *step;    /* the present one's name */

    /* authenticate */
    enum credential_kind credential;
    uint8_t token_hash[SHA256_BYTES];
    struct chain_verdict peer;
    const struct catalog_ca *peer_ca;
    struct fault expired;    /* why the certificate is refused unless its template bears it */
    struct enrol_peer owner; /* of the certificate, for CREDENTIAL_DEVICE */
    struct claim_row claim;  /* for CREDENTIAL_CLAIM */
    struct bytes claim_fingerprint;

    /* admit: what is known of a certificate that comes by itself */
    struct jit_known known;
    bool own;                /* its CA is ours: the registry lost it */
    const char *own_product; /* that it names; NULL: none */
    const char *own_serial;
    bool admitting; /* its first contact registers it: from here on a refusal is noted there */

    /* identify; the serial of a token holder may only be known from the CSR */
    const struct catalog_template *template;
    const struct template_settings *settings;
    struct serial serial;
    bool serial_known;
    bool proven; /* the credential proves the serial; for tokens: said by record */

    /* own: the certificate that a registration is for */
    struct claim_owned owned;
    uint8_t ownership_hash[SHA256_BYTES];
    uint8_t parameters_hash[SHA256_BYTES];
    bool answered; /* it was registered already: the result is there, the rest is passed over */

    /* hook: the device's parameters, and what the hook made of them */
    struct enrollment_parameter given[ENROLLMENT_MAX_PARAMETERS];
    size_t given_count;

    /* decode */
    struct csr csr;
    struct keygen_wish wish; /* how a key made here is to travel */

    /* evaluate and issue */
    struct template_params params;
    struct cert_profile profile;
    const struct issuer *issuer;
    struct issued issued;
    struct registration registration;
    const char *groups; /* as recorded, JSON */
    const char *policies;

    struct enrollment_result result;
};

enum err step_authenticate(struct enrolment *e) MUST_CHECK;
enum err step_admit(struct enrolment *e) MUST_CHECK;
enum err step_identify(struct enrolment *e) MUST_CHECK;
enum err step_own(struct enrolment *e) MUST_CHECK;
enum err step_decode(struct enrolment *e) MUST_CHECK;
enum err step_link(struct enrolment *e) MUST_CHECK;
enum err step_authorize(struct enrolment *e) MUST_CHECK;
enum err step_limit(struct enrolment *e) MUST_CHECK;
enum err step_hook(struct enrolment *e) MUST_CHECK;
enum err step_evaluate(struct enrolment *e) MUST_CHECK;
enum err step_issue(struct enrolment *e) MUST_CHECK;
enum err step_record(struct enrolment *e) MUST_CHECK;
enum err step_journal(struct enrolment *e) MUST_CHECK;

/* The certificate that came names the device, and its CA stands for what it says. */
bool enrolment_by_factory(const struct enrolment *e);

/* Whether a certificate of our own CA that nobody knows is admitted, and with which template. */
enum err admit_own(struct enrolment *e) MUST_CHECK;
enum err admit_own_template(struct enrolment *e) MUST_CHECK;

/* Notes why a certificate's contact gave no device. */
void admit_failed(const struct enrolment *e);

/* The serial in the factory certificate, or in the CSR, where the template looks; NULL: none. */
const char *enrolment_named_serial(const struct enrolment *e);

/* The value of a parameter that the device gave or the hook put in its place; NULL: none. */
const char *enrolment_given(const struct enrolment *e, const char *name);

/* Whose signature the certificate has, or will have: the CA's number. */
int64_t enrolment_issuer(const struct enrolment *e);

/* Who asks, for what, with which credential: the part of a record that every way has. */
void enrolment_origin(const struct enrolment *e, struct enrol_record *r);

/* The certificate, made now or before. */
void enrolment_certificate(const struct enrolment *e, struct enrol_record *r);

/* What the registry said: ok, or its refusal as the request's fault. */
enum err enrolment_judged(struct enrolment *e, enum err err, const struct enrol_outcome *o,
                          const char *doing);

/* The result of a registration that was made before: what the device was told then. */
enum err enrolment_answer_again(struct enrolment *e, const struct enrol_outcome *o);

/* A certificate for a claim, for which nobody has named a device yet: the last step of
 * FLOW_CREATE, and whether one may be made, for the steps before it. */
enum err create_allowed(struct enrolment *e) MUST_CHECK;
enum err create_record(struct enrolment *e) MUST_CHECK;

/* Finds the serial: from the certificate, the credential's user or the CSR, in that order. */
enum err enrolment_serial(struct enrolment *e) MUST_CHECK;

/* Out of memory, in the arena's sense: the request was too large. */
enum err enrolment_no_memory(struct enrolment *e);
