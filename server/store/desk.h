/*
 * The operator's desk: every call of the admin API is one statement over (op, args), two JSON
 * objects, and answers JSON. schema/0003_desk.sql says what op and args are. Threads: any.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/statements.h"

/* Calls, in the order of the table in desk.c. Lists page by key. */
enum desk_call {
    DESK_PRODUCT_LIST,
    DESK_PRODUCT_CREATE,
    DESK_TEMPLATE_LIST,
    DESK_TEMPLATE_PUT,
    DESK_TEMPLATE_SHOW,
    DESK_TEMPLATE_ENABLE,
    DESK_ALLOWLIST_LIST,
    DESK_ALLOWLIST_BLOCK,
    DESK_TOKEN_LIST,
    DESK_TOKEN_CREATE,
    DESK_TOKEN_SHOW,
    DESK_TOKEN_REVOKE,
    DESK_TOKEN_REGENERATE,
    DESK_CLAIM_LIST,
    DESK_CLAIM_CREATE,
    DESK_CLAIM_SHOW,
    DESK_CLAIM_ROTATE,
    DESK_CLAIM_REVOKE,
    DESK_CLAIM_STOCK,
    DESK_CA_LIST,
    DESK_CA_SHOW,
    DESK_CA_REGISTER,
    DESK_CA_ACTIVATE,
    DESK_CA_UPDATE,
    DESK_CA_CODE,
    DESK_CA_EXPORT,
    DESK_CA_IMPORT,
    DESK_UNKNOWN_CA,
    DESK_UNKNOWN_LIST,
    DESK_UNKNOWN_DISMISS,
    DESK_DEVICE_LIST,
    DESK_DEVICE_SHOW,
    DESK_DEVICE_QUARANTINE,
    DESK_DEVICE_RELEASE,
    DESK_DEVICE_RESET,
    DESK_DEVICE_RETIRE,
    DESK_DEVICE_APPROVE,
    DESK_DEVICE_REJECT,
    DESK_DEVICE_SEEN,
    DESK_CERT_LIST,
    DESK_CERT_SHOW,
    DESK_CERT_REVOKE,
    DESK_CERT_WAITING,
    DESK_CERT_ACTIVATE,
    DESK_CERT_REGISTER,
    DESK_CERT_REGISTER_BEGIN,
    DESK_ATTEMPTS,
    DESK_SINK_LIST,
    DESK_SINK_CREATE,
    DESK_SINK_PAUSE,
    DESK_SINK_DELETE,
    DESK_EVENT_LIST,
    DESK_DEAD_LIST,
    DESK_DEAD_END,
    DESK_STUCK_LIST,
    DESK_LIMIT_LIST,
    DESK_LIMIT_SET,
    DESK_CA_CRL,
    DESK_SIGNER_LIST,
    DESK_SIGNER_CREATE,
    DESK_SIGNER_DELETE,
    DESK_BATCH_LIST,
    DESK_BATCH_CREATE,
    DESK_BATCH_SHOW,
    DESK_BATCH_CLOSE,
    DESK_STATION_LIST,
    DESK_STATION_CREATE,
    DESK_STATION_REVOKE,
    DESK_FACTORY_RECONCILE,
    DESK_ENROLLMENT_LIST,
    DESK_ENROLLMENT_CREATE,
    DESK_ENROLLMENT_IMPORT,
    DESK_ENROLLMENT_SHOW,
    DESK_ENROLLMENT_UPDATE,
    DESK_ENROLLMENT_DELETE,
    DESK_ENDPOINT_LIST,
    DESK_ENDPOINT_PUT,
    DESK_ENDPOINT_DELETE,
    DESK_CERT_EXPIRING,
    DESK_CERT_FORECAST,
    DESK_CRL_LIST,
    DESK_CRL_SIGN,
    DESK_TRUST_OWN,
    DESK_AUDIT_LIST,
    DESK_AUDIT_EXPORT,
    DESK_AUDIT_VERIFY,
    DESK_STATUS,
    DESK_DOCTOR,
    DESK_ADMIN_TOKEN_LIST,
    DESK_ADMIN_TOKEN_CREATE,
    DESK_ADMIN_TOKEN_REVOKE,
    DESK_CALL_COUNT
};

struct desk_answer {
    const char *json; /* in the arena */
    const char *next; /* lists: the key of the last row; NULL when the page is empty */
    int rows;         /* lists */
};

/* ERR_DENIED: ret_message has a fault's code, a line end and the detail; otherwise what
 * PostgreSQL said (DB_MAX_MESSAGE_BYTES). */
enum err desk_call(struct db *db, enum desk_call call, const char *op, const char *args,
                   struct arena *arena, struct desk_answer *ret_answer,
                   char *ret_message) MUST_CHECK;

/* Imports an allowlist: rows is COPY text of line, serial, canonical, pin (\x...), batch, reason.
 */
enum err desk_import(struct db *db, const char *op, const char *args, struct bytes rows,
                     struct arena *arena, struct desk_answer *ret_answer,
                     char *ret_message) MUST_CHECK;

/* Who an admin token belongs to. */
struct desk_operator {
    const char *name;
    const char *role;
    const char *product; /* NULL: all */
    int64_t product_id;  /* 0: all */
};

/* hash: SHA-256 of the token. ERR_NOT_FOUND: unknown or revoked. */
enum err desk_login(struct db *db, struct bytes hash, struct arena *arena,
                    struct desk_operator *ret_operator) MUST_CHECK;

extern const struct stmt_set desk_statements;
