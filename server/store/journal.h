/*
 * What the registry knows of the journals of its replicas (schema/0028_recovery.sql): what is due
 * to be written there, and what their files begin with. Threads: any.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "store/db.h"
#include "store/statements.h"

/* The registry's products, templates and CAs, a JSON object each, in the arena; the epoch was read
 * first. */
enum err journal_configuration(struct db *db, struct arena *arena, int64_t *ret_epoch,
                               const char ***ret_entries, size_t *ret_count) MUST_CHECK;

/* The certificate of a registration that was made before, as a line; ret_entry NULL: there is none.
 * By its fingerprint, or by the hash of the ownership token that named it (len 0: not). */
enum err journal_issued_before(struct db *db, struct bytes fingerprint, struct bytes ownership,
                               struct arena *arena, const char **ret_entry) MUST_CHECK;

/* From now on what is revoked, quarantined, released or retired is kept until a journal has it. */
enum err journal_writer_seen(struct db *db, const char *replica) MUST_CHECK;

/* Writes entries to the journal; what it returns decides whether they are due still. */
typedef enum err (*journal_write_fn)(void *ctx, const char *const *entries, size_t count);

/* Takes what is due, oldest first, and gives it to write, at most so many at once; ret_count: how
 * many those were. Who is about to write the same is waited for. */
enum err journal_due_write(struct db *db, journal_write_fn write, void *ctx,
                           size_t *ret_count) MUST_CHECK;

extern const struct stmt_set journal_statements;
