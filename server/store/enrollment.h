/*
 * Enrollments (devices and groups known by a key before they come) and what their devices were
 * assigned, as schema/0030_dps.sql and after it have them. Everything returned lives in the arena.
 * Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/statements.h"

enum attestation { ATTEST_SYMMETRIC, ATTEST_X509, ATTEST_TPM, ATTEST_PSK };

/* Absent bytes have a NULL data pointer. */
struct enrollment_row {
    int64_t id;
    bool grouped;
    bool enabled;
    enum attestation attestation;
    const char *name;
    const char *name_lower;
    const char *serial; /* NULL: the registration id */
    int64_t template_id;
    struct bytes keys[2]; /* sealed; primary, secondary */
    struct bytes certificates[2];
    struct bytes endorsement;
    struct bytes storage_root;
    const char *roots; /* PEM, of a group by TPMs; NULL: none */
};

/* The individual enrollment of a registration id, disabled or not; where there is none the groups
 * by that attestation, by certificates the group of a CA. Possibly none. */
enum err enrollment_candidates(struct db *db, const char *registration_id, enum attestation kind,
                               int64_t ca_id, struct arena *arena, struct enrollment_row **ret_rows,
                               size_t *ret_count) MUST_CHECK;

/* What a device was assigned when it registered last. */
struct assignment {
    const char *standing; /* why the device may not be told now, as a fault's code, or "ok" */
    const char *registration_id;
    const char *device_id;
    const char *endpoint;
    const char *substatus;
    const char *etag;
    const char *created; /* RFC 3339, UTC */
    const char *updated;
    const char *payload; /* JSON; NULL: none */
    const char *group;   /* name of its group; NULL: an individual enrollment */
};

/* ERR_NOT_FOUND: it never registered by this enrollment. registration_id in small letters;
 * certificate: SHA-256 of the one it asks with, len 0: with none. */
enum err assignment_get(struct db *db, const char *registration_id, int64_t enrollment_id,
                        struct bytes certificate, struct arena *arena,
                        struct assignment *ret_assignment) MUST_CHECK;

/* A registration that could not be done yet; the last one of that id only. */
enum err operation_keep(struct db *db, const char *registration_id, const char *operation,
                        const char *body) MUST_CHECK;

/* The body of an operation. ERR_NOT_FOUND: it is not kept, or was done. */
enum err operation_get(struct db *db, const char *registration_id, const char *operation,
                       struct arena *arena, const char **ret_body) MUST_CHECK;

/* The registry's sealing key, enciphered: made, where there is none yet. */
enum err secret_key_keep(struct db *db, struct bytes made, struct arena *arena,
                         struct bytes *ret_wrapped) MUST_CHECK;

extern const struct stmt_set enrollment_statements;
