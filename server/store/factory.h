/*
 * The factory's side of the registry: for whom devices are certified, certifying many at once, and
 * the journals of stations. Threads: any.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/enrol.h"
#include "store/statements.h"

/* For whom devices are certified, or whose journal is read; all of the arena. */
struct factory_scope {
    const char *station; /* NULL: an operator asks */
    const char *batch;
    int64_t template_id;
    struct bytes certificate; /* DER of the station's; its key seals the journal */
    int64_t journal_n;        /* the last line of the journal that is here; 0: none */
    const char *journal_hash;
    const char *json; /* as the functions below take it */
};

/* Each of them: ERR_DENIED a refusal, whose code and detail are in ret_message
 * (DB_MAX_MESSAGE_BYTES) as of db_query. op: who asks, as the desk's functions take it. */
enum err factory_by_certificate(struct db *db, struct bytes fingerprint, struct arena *arena,
                                struct factory_scope *ret_scope, char *ret_message) MUST_CHECK;
enum err factory_by_batch(struct db *db, const char *op, const char *batch, struct arena *arena,
                          struct factory_scope *ret_scope, char *ret_message) MUST_CHECK;
enum err factory_by_station(struct db *db, const char *op, const char *station, struct arena *arena,
                            struct factory_scope *ret_scope, char *ret_message) MUST_CHECK;

/* Records devices of a batch in one transaction, outcomes in the order of the records. op NULL: a
 * station asks. again: units may be made again, and lose a certificate that was never used.
 * ERR_CONFLICT: another request was faster with one of them; nothing was recorded. */
enum err factory_certify(struct db *db, const char *op, const struct factory_scope *scope,
                         const struct enrol_record *records, size_t count, bool again,
                         struct arena *arena, struct enrol_outcome *ret_outcomes,
                         char *ret_message) MUST_CHECK;

/* A line of a journal that is here. */
struct factory_known {
    int64_t n;
    const char *hash;
};

/* Those from first to last, in their order; in the arena. */
enum err factory_known_get(struct db *db, const struct factory_scope *scope, int64_t first,
                           int64_t last, struct arena *arena, struct factory_known **ret_known,
                           size_t *ret_count) MUST_CHECK;

/* Which of the certificates are registered: ret_there[i] of fingerprints[i]. */
enum err factory_registered(struct db *db, const struct bytes *fingerprints, size_t count,
                            struct arena *arena, bool *ret_there) MUST_CHECK;

/* Lines up to a seal, as JSON arrays; the head moves to its number and hash. */
enum err factory_entries_put(struct db *db, const char *op, const struct factory_scope *scope,
                             const char *lines, const char *gaps, int64_t head_n,
                             const char *head_hash, char *ret_message) MUST_CHECK;

extern const struct stmt_set factory_statements;
