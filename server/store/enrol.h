/*
 * What is recorded of enrolments, and the statements around it; store/commit.h records them.
 * Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/statements.h"

enum { ENROL_MAX_RECORD_BYTES = 256 * 1024, ENROL_MAX_BATCH = 64, ENROL_MAX_COMMITTERS = 2 };

/* The row type muster.enrol_request; absent bytes have a NULL data pointer, texts are NULL.
 * JSON members are JSON texts. */
struct enrol_record {
    const char *request_id;
    int64_t asked_us; /* the registry's time of day, since 1970; it was sent then or later */
    const char *protocol;
    const char *operation;
    const char *credential; /* token, factory, device, claim, jit */
    const char *source;
    int64_t product_id;
    int64_t template_id;
    int template_version;
    const char *template_label;
    const char *serial;
    const char *serial_canonical;
    struct bytes token_hash;
    int64_t claim_id; /* 0: no claim */
    const char *claim_name;
    bool claim_late; /* the claim certificate itself has expired */
    const char *client_id;
    struct bytes ownership_hash;
    struct bytes parameters_hash;

    struct bytes peer_fingerprint;
    struct bytes peer_der;
    struct bytes peer_serial_number;
    struct bytes peer_spki;
    int64_t peer_ca;
    int64_t peer_not_before;
    int64_t peer_not_after;

    struct bytes spki;
    struct bytes fingerprint;
    struct bytes certificate;
    struct bytes serial_number;
    int64_t issuer_id;
    int64_t not_before;
    int64_t not_after;

    const char *thing_name;
    const char *thing_type;
    const char *billing_group;
    const char *attributes;
    const char *attributes_override;
    const char *type_override;
    const char *groups_override;
    const char *groups;
    const char *policies;
    const char *configuration;
    bool inactive;

    bool allowlist_required;
    bool replace;
    const char *verify;
    int64_t verify_within_s;
    int64_t renew_before_s;
    int64_t grace_s;
    int64_t replay_s;
    bool approval;   /* the template wants an operator's word */
    bool server_key; /* the key was made here */
    bool own;        /* of jit: the certificate is of a CA of ours, and lost */
    const char *steps;
};

struct enrol_outcome {
    const char *code;         /* ok, replayed, approval.pending (recorded), or a fault's code */
    const char *detail;       /* for operators */
    bool proven;              /* the credential proves that very device */
    struct bytes certificate; /* of a replay; empty otherwise */
    const char *state;        /* NULL on refusal */
    const char *answer;       /* of a registration asked again: JSON; else NULL */
};

/* What a device's certificate says of it. */
struct enrol_peer {
    const char *serial;
    const char *serial_canonical;
    int64_t product_id;
    int64_t template_id;
    bool operational; /* the certificate; else it may only ask for one */
};

/* The device of a certificate; ERR_NOT_FOUND. Whether it may do anything is judged when the
 * enrolment is recorded. */
enum err enrol_peer_get(struct db *db, struct bytes fingerprint, struct arena *arena,
                        struct enrol_peer *ret_peer) MUST_CHECK;

/* Whether a key is worth making for an enrolment whose certificate is not made yet: code is ok,
 * approval.pending (the asking is noted) or a fault's. */
enum err enrol_keygen_check(struct db *db, const struct enrol_record *record, struct arena *arena,
                            struct enrol_outcome *ret_outcome) MUST_CHECK;

/* When a certificate of ours ends. */
struct enrol_renewal {
    int64_t not_before_s;
    int64_t not_after_s;
    int64_t template_id;
    bool live; /* neither superseded nor revoked */
};
enum err enrol_renewal_get(struct db *db, struct arena *arena, int64_t issuer_id,
                           struct bytes serial_number,
                           struct enrol_renewal *ret_renewal) MUST_CHECK;

/* Records a refused attempt; json is the argument of muster.attempt_failed. */
enum err enrol_failed(struct db *db, const char *json) MUST_CHECK;

/* Notes the use of a certificate by its device: VERIFY at first. */
struct enrol_seen {
    const char *code; /* ok or a fault's code */
    const char *detail;
    const char *serial;
    const char *thing_name;    /* NULL: none */
    const char *configuration; /* JSON object */
    const char *state;
};
enum err enrol_seen_record(struct db *db, struct bytes fingerprint, const char *how,
                           const char *request_id, const char *source, struct arena *arena,
                           struct enrol_seen *ret_seen) MUST_CHECK;

/* Remembers an issuer nobody registered; the table keeps the 256 seen last. */
struct unknown_issuer {
    struct bytes hash;
    const char *issuer;
    struct bytes aki;
    struct bytes sample;
    struct bytes certificate; /* of the issuer itself; len 0: nobody sent it */
    const char *source;
};
enum err enrol_unknown_issuer(struct db *db, struct arena *arena,
                              const struct unknown_issuer *u) MUST_CHECK;

extern const struct stmt_set enrol_statements;
