/*
 * What ends soon: certificates, CAs, the server's own certificate, CRLs (schema/0022). Threads:
 * any.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "store/db.h"
#include "store/statements.h"

/* Tells the outbox what has come within a threshold of its end, each once; server_ends_s: the end
 * of the certificate that this replica shows; ra_ends_s: that of its registration authority, 0: it
 * has none. ret_events: the events, JSON objects in the arena. Of
 * CAs, CRLs and devices one replica tells, the others get none. */
enum err expiry_tell(struct db *db, int64_t server_ends_s, int64_t ra_ends_s, struct arena *arena,
                     const char *const **ret_events, size_t *ret_count) MUST_CHECK;

extern const struct stmt_set expiry_statements;
