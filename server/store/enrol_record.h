/*
 * What is recorded of an enrolment and what the registry says to it, as the schema's functions take
 * and give them. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "store/db.h"

enum { ENROL_MAX_RECORD_BYTES = 256 * 1024, ENROL_MAX_BATCH = 64, ENROL_MAX_COMMITTERS = 2 };

/* The row type muster.enrol_request; absent bytes have a NULL data pointer, texts are NULL.
 * JSON members are JSON texts. */
struct enrol_record {
    const char *request_id;
    int64_t asked_us; /* the registry's time of day, since 1970; it was sent then or later */
    const char *protocol;
    const char *operation;
    const char *credential; /* token, enrollment, factory, device, claim, jit */
    const char *source;
    int64_t product_id;
    int64_t template_id;
    int template_version;
    const char *template_label;
    const char *serial;
    const char *serial_canonical;
    struct bytes token_hash;
    int64_t enrollment_id; /* 0: none */
    const char *registration_id;
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
    bool hearsay;    /* of jit: nobody has shown its key */
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

/* An enrolment as an element of the open array, a muster.enrol_request; ord: its number there. */
void enrol_record_add(struct buf *b, const struct enrol_record *r, size_t ord);

/* Many of one kind: what they have in common goes before them, each says where it differs, and the
 * certificates stand apart, one behind the other. */
void enrol_record_add_base(struct buf *b, const struct enrol_record *r);
void enrol_record_add_apart(struct buf *b, const struct enrol_record *r,
                            const struct enrol_record *base, size_t ord, size_t der_at);

/* What the schema's functions answer of one, a muster.enrol_result; the first column is its number.
 */
#define ENROL_OUTCOME_COLUMNS "ord, code, detail, proven, certificate, state, answer"
enum err enrol_outcome_read(const PGresult *r, int row, struct arena *arena,
                            struct enrol_outcome *ret_outcome) MUST_CHECK;
