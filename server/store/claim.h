/*
 * Claims and the certificates made for them before it is known for which device: looked up here,
 * judged by the registry's own functions. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/enrol.h"
#include "store/statements.h"

enum { CLAIM_MAX_TEMPLATES = 16, CLAIM_NAME_BYTES = 65 };

/* What a replica needs of a claim; plain, so that it is copied. Whether it may be used is judged
 * anew by every call below and by the enrolment. */
struct claim_row {
    int64_t id;
    char name[CLAIM_NAME_BYTES];
    int64_t template_id; /* of requests that name none */
    int64_t templates[CLAIM_MAX_TEMPLATES];
    size_t template_count;
    unsigned rate_per_second; /* 0: no limit */
    unsigned rate_burst;
    int64_t grace_s;
};

/* ERR_NOT_FOUND: no claim has this certificate. */
enum err claim_get(struct db *db, struct bytes fingerprint, struct arena *arena,
                   struct claim_row *ret_claim) MUST_CHECK;

/* Whether another certificate may be made for it: code is ok or a fault's. */
enum err claim_certificate_check(struct db *db, int64_t claim_id, bool late, struct arena *arena,
                                 struct enrol_outcome *ret_outcome) MUST_CHECK;

/* Records such a certificate: of the record, the origin, the claim and the certificate are read;
 * ownership_hash is that of the token that will name it. */
struct claim_certificate {
    const struct enrol_record *record;
    int key_kind;
    const char *csr_serial; /* NULL: its request named none */
    int64_t life_s;         /* of the ownership token */
};
enum err claim_certificate_make(struct db *db, const struct claim_certificate *certificate,
                                struct arena *arena, struct enrol_outcome *ret_outcome) MUST_CHECK;

/* The certificate that an ownership token names. */
struct claim_owned {
    struct bytes spki; /* SHA-256 */
    struct bytes fingerprint;
    struct bytes certificate;
    struct bytes serial_number;
    int64_t issuer_id;
    int64_t not_before_s;
    int64_t not_after_s;
    int key_kind;
    const char *csr_serial; /* NULL: none */
};

/* Of the record, the origin and the claim are read. The outcome's code is ok (ret_owned is filled),
 * replayed (its answer is what was answered before) or a fault's. */
enum err claim_certificate_open(struct db *db, const struct enrol_record *record,
                                struct arena *arena, struct claim_owned *ret_owned,
                                struct enrol_outcome *ret_outcome) MUST_CHECK;

extern const struct stmt_set claim_statements;
