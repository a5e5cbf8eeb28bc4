#include "store/gate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { NUMBER_BYTES = 24, HEX_PREFIX_CHARS = 2 };

static const struct stmt stmts[] = {
    {"gate_now", "SELECT stable, newest, pruned_through, snapshot FROM gate_now()", 0},
    {"gate_changes",
     "SELECT xid, seq, fingerprint, state, thing"
     " FROM gate_changes($1::bigint, $2::bigint, $3, $4::bigint, $5::bigint, $6::int)",
     6},
    {"gate_claims", "SELECT 0, id, fingerprint, state, thing FROM gate_claims($1::bigint, $2::int)",
     2},
    {"gate_certificates",
     "SELECT 0, id, fingerprint, state, thing FROM gate_certificates($1::bigint, $2::int)", 2},
};
const struct stmt_set gate_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_NOW, S_CHANGES, S_CLAIMS, S_CERTIFICATES };
enum { C_POSITION, C_ID, C_FINGERPRINT, C_STATE, C_THING };

enum err gate_now_get(struct db *db, struct arena *arena, struct gate_now *ret_now)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_NOW], NULL, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_SYSTEM;
    struct gate_now now = {
        .stable = atoll(PQgetvalue(r, 0, 0)),
        .newest = atoll(PQgetvalue(r, 0, 1)),
        .pruned = atoll(PQgetvalue(r, 0, 2)),
        .snapshot = arena_strdup(arena, PQgetvalue(r, 0, 3)),
    };
    if (!now.snapshot)
        return ERR_NO_MEMORY;
    *ret_now = now;
    return ERR_OK;
}

static enum err entry_take(const PGresult *r, int row, struct gate_entry *entry)
{
    const char *fingerprint = PQgetvalue(r, row, C_FINGERPRINT);
    const char *thing = PQgetvalue(r, row, C_THING);
    int64_t state = 0;
    if (strncmp(fingerprint, "\\x", HEX_PREFIX_CHARS) != 0 ||
        text_parse_hex(fingerprint + HEX_PREFIX_CHARS, entry->fingerprint, SHA256_BYTES) ||
        text_parse_int(PQgetvalue(r, row, C_STATE), WIRE_ABSENT, WIRE_UNUSED, &state) ||
        strlen(thing) > WIRE_MAX_THING_CHARS)
        return ERR_SYSTEM;
    entry->state = (enum wire_state)state;
    memcpy(entry->thing, thing, strlen(thing) + 1);
    return ERR_OK;
}

static enum err page_load(struct db *db, struct arena *arena, const struct stmt *stmt,
                          const char *const *params, struct gate_page *ret_page)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, stmt, params, &r, NULL);
    if (e)
        return e;
    int rows = PQntuples(r);
    struct gate_page page = {.count = (size_t)rows, .more = rows == WIRE_MAX_BATCH_ENTRIES};
    page.entries = arena_alloc(arena, (page.count + 1) * sizeof(*page.entries));
    if (!page.entries)
        return ERR_NO_MEMORY;
    for (int i = 0; i < rows && !e; i++)
        e = entry_take(r, i, &page.entries[i]);
    if (e)
        return e;
    if (rows > 0) {
        page.last_position = atoll(PQgetvalue(r, rows - 1, C_POSITION));
        page.last_id = atoll(PQgetvalue(r, rows - 1, C_ID));
    }
    *ret_page = page;
    return ERR_OK;
}

static const char *number(int64_t n, char out[NUMBER_BYTES])
{
    snprintf(out, NUMBER_BYTES, "%" PRId64, n);
    return out;
}

enum err gate_changes_load(struct db *db, struct arena *arena, const struct gate_cursor *cursor,
                           struct gate_page *ret_page)
{
    char base[NUMBER_BYTES], stable[NUMBER_BYTES], position[NUMBER_BYTES], id[NUMBER_BYTES];
    char most[NUMBER_BYTES];
    const char *params[] = {number(cursor->base, base),
                            number(cursor->stable, stable),
                            cursor->seen,
                            number(cursor->after_position, position),
                            number(cursor->after_id, id),
                            number(WIRE_MAX_BATCH_ENTRIES, most)};
    return page_load(db, arena, &stmts[S_CHANGES], params, ret_page);
}

static enum err snapshot_load(struct db *db, struct arena *arena, const struct stmt *stmt,
                              int64_t after, struct gate_page *ret_page)
{
    char id[NUMBER_BYTES], most[NUMBER_BYTES];
    const char *params[] = {number(after, id), number(WIRE_MAX_BATCH_ENTRIES, most)};
    return page_load(db, arena, stmt, params, ret_page);
}

enum err gate_claims_load(struct db *db, struct arena *arena, int64_t after,
                          struct gate_page *ret_page)
{
    return snapshot_load(db, arena, &stmts[S_CLAIMS], after, ret_page);
}

enum err gate_certificates_load(struct db *db, struct arena *arena, int64_t after,
                                struct gate_page *ret_page)
{
    return snapshot_load(db, arena, &stmts[S_CERTIFICATES], after, ret_page);
}
