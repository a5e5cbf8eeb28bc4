/* What SCEP asks of the registry. Everything returned lives in the arena. Threads: any. */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/statements.h"

/* A message whose enrolment waits, under 32 bytes that name its transaction; the device's last one.
 */
enum err scep_pending_keep(struct db *db, struct bytes transaction, struct bytes message,
                           const char *device, struct arena *arena) MUST_CHECK;

/* ERR_NOT_FOUND: nothing waits, or it was forgotten. */
enum err scep_pending_get(struct db *db, struct bytes transaction, struct arena *arena,
                          struct bytes *ret_message) MUST_CHECK;

/* A certificate of the very device whose certificate has this fingerprint. ERR_NOT_FOUND. */
enum err scep_own_certificate(struct db *db, struct bytes fingerprint, int64_t issuer_id,
                              struct bytes serial_number, struct arena *arena,
                              struct bytes *ret_der) MUST_CHECK;

extern const struct stmt_set scep_statements;
