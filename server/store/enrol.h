/*
 * The statements around enrolments; store/commit.h records them.
 * Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/enrol_record.h"
#include "store/statements.h"

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
