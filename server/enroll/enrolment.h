/*
 * One enrolment under way: what the steps of the pipeline find goes in here for the next. For
 * pipeline.c, factory.c and the steps only. Threads: the request's own.
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
#include "store/enrollment.h"
#include "store/jit.h"

enum credential_kind {
    CREDENTIAL_NONE,
    CREDENTIAL_TOKEN,      /* bootstrap token; judged when it is recorded */
    CREDENTIAL_STATION,    /* a station, or an operator, of the factory */
    CREDENTIAL_ENROLLMENT, /* a key or certificate that was known before the device came */
    CREDENTIAL_FACTORY,    /* certificate of a registered CA */
    CREDENTIAL_DEVICE,     /* certificate of our own */
    CREDENTIAL_CLAIM,      /* claim certificate; judged when it is recorded */
    CREDENTIAL_JIT,        /* certificate of a registered CA, to become the device's own */
};

/* "none", "token", "station", "enrollment", "factory", "device", "claim", "jit". */
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
    const char *registration_id; /* in small letters */
    struct enrollment_row enrollment;
    struct bytes challenge; /* for the device's TPM */
    struct tpm_question question;
    bool bound; /* the CSR's key must be the one that the TPM certified */
    uint8_t bound_spki[SHA256_BYTES];

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
