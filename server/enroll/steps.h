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
#include "enroll/service.h"
#include "model/enrollment.h"
#include "model/fault.h"
#include "pki/csr.h"
#include "pki/keygen.h"
#include "store/enrol.h"

enum credential_kind {
    CREDENTIAL_NONE,
    CREDENTIAL_TOKEN,   /* bootstrap token; judged when it is recorded */
    CREDENTIAL_FACTORY, /* certificate of a registered CA */
    CREDENTIAL_DEVICE,  /* certificate of our own */
};

/* "none", "token", "factory", "device". */
const char *credential_name(enum credential_kind k);

struct enrolment {
    struct service *service;
    struct snapshot *snapshot;
    const struct enrollment_request *rq;
    struct arena *arena;
    struct fault *fault;
    const char *reached; /* the last state the attempt came to */
    const char *steps;   /* JSON: the steps and their microseconds */

    /* authenticate */
    enum credential_kind credential;
    uint8_t token_hash[SHA256_BYTES];
    struct chain_verdict peer;
    const struct catalog_ca *peer_ca;
    struct fault expired;    /* why the certificate is refused unless its template bears it */
    struct enrol_peer owner; /* of the certificate, for CREDENTIAL_DEVICE */

    /* identify; the serial of a token holder may only be known from the CSR */
    const struct catalog_template *template;
    const struct template_settings *settings;
    struct serial serial;
    bool serial_known;
    bool proven; /* the credential proves the serial; for tokens: said by record */

    /* decode */
    struct csr csr;
    struct keygen_wish wish; /* how a key made here is to travel */

    /* evaluate and issue */
    struct template_params params;
    struct cert_profile profile;
    const struct issuer *issuer;
    struct issued issued;
    struct registration registration;

    struct enrollment_result result;
};

enum err step_authenticate(struct enrolment *e) MUST_CHECK;
enum err step_identify(struct enrolment *e) MUST_CHECK;
enum err step_decode(struct enrolment *e) MUST_CHECK;
enum err step_link(struct enrolment *e) MUST_CHECK;
enum err step_authorize(struct enrolment *e) MUST_CHECK;
enum err step_limit(struct enrolment *e) MUST_CHECK;
enum err step_evaluate(struct enrolment *e) MUST_CHECK;
enum err step_issue(struct enrolment *e) MUST_CHECK;
enum err step_record(struct enrolment *e) MUST_CHECK;

/* Finds the serial: from the certificate, the credential's user or the CSR, in that order. */
enum err enrolment_serial(struct enrolment *e) MUST_CHECK;

/* Out of memory, in the arena's sense: the request was too large. */
enum err enrolment_no_memory(struct enrolment *e);
