/*
 * What every protocol adapter works with: the registry, the catalog of cached configuration,
 * the pipeline's settings. Made by main, outlives every request. Threads: any.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/secret.h"
#include "enroll/crls.h"
#include "pki/scep.h"
#include "store/db.h"

struct catalog;
struct claims;
struct committer;
struct crl_shelf;
struct gate;
struct hooks;
struct journal;
struct limits;
struct metrics;
struct ocsp_desk;
struct sealer;
struct source_limit;

struct service {
    struct db *db;
    struct catalog *catalog;
    struct claims *claims;
    struct committer *committer;
    struct source_limit *trail_limit; /* refusals of strangers written down */
    struct source_limit *token_limit; /* refused tokens, keys of no enrollment */
    struct source_limit *login_limit; /* failed admin logins */
    struct limits *limits;            /* how many enrolments may pass */
    struct hooks *hooks;              /* whom templates ask before they provision */
    struct metrics *metrics;
    struct sealer *sealer; /* of symmetric keys; NULL: [secrets] key is not set */
    struct scep_ra *scep;  /* NULL: no SCEP */
    struct scep_options scep_options;
    const char *dps_scope;   /* ID scope of DPS; NULL: nobody registers so */
    struct journal *journal; /* NULL: none is kept */
    struct crl_shelf *crls;  /* as they were served last */
    struct ocsp_desk *ocsp;
    struct revocation_settings revocation;
    struct gate *device_gate; /* enrolments are inside; a step that waits leaves it meanwhile */
    struct gate *admin_gate;
    struct buf passphrase;                  /* of the issuing keys; secret */
    struct signer_source keys;              /* of the issuing CAs */
    _Atomic(int64_t) server_cert_ends_s;    /* seconds since 1970; changes with a reload */
    _Atomic(const char *) default_template; /* NULL: none; changes with a reload */
    atomic_uint queue_timeout_ms;           /* at the gate; likewise */
    atomic_uint max_clock_skew_s;           /* against the registry's; likewise */
    uint8_t scrape_token[SHA256_BYTES];     /* hash of what opens GET /metrics by itself */
    bool scrape_token_set;
    atomic_uint coming; /* connections that have not asked for anything yet */
    atomic_bool draining;
};
