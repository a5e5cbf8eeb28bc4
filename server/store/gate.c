#include "store/gate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { NUMBER_BYTES = 24, HEX_PREFIX_CHARS = 2 };

static const struct stmt stmts[] = {
    {"gate_now", "SELECT stable, newest, pruned_through, snapshot, epoch FROM gate_now()", 0},
    {"gate_changes",
     "SELECT xid, seq, fingerprint, state, thing, policies, thing_values"
     " FROM gate_changes($1::bigint, $2::bigint, $3, $4::bigint, $5::bigint, $6::int)",
     6},
    {"gate_claims",
     "SELECT 0, id, fingerprint, state, thing, policies, thing_values"
     " FROM gate_claims($1::bigint, $2::int)",
     2},
    {"gate_certificates",
     "SELECT 0, id, fingerprint, state, thing, policies, thing_values"
     " FROM gate_certificates($1::bigint, $2::int)",
     2},
    {"gate_policies", "SELECT id, document FROM gate_policies($1::bigint[])", 1},
    {"gate_one",
     "SELECT 0, 0, fingerprint, state, thing, policies, thing_values, der FROM gate_one($1, $2,"
     " $3::bigint)",
     3},
    {"gate_cas", "SELECT certificate FROM gate_cas()", 0},
};
const struct stmt_set gate_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_NOW, S_CHANGES, S_CLAIMS, S_CERTIFICATES, S_POLICIES, S_ONE, S_CAS };
enum { C_POSITION, C_ID, C_FINGERPRINT, C_STATE, C_THING, C_POLICIES, C_VALUES, C_DER };

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
        .epoch = atoll(PQgetvalue(r, 0, 4)),
    };
    if (!now.snapshot)
        return ERR_NO_MEMORY;
    *ret_now = now;
    return ERR_OK;
}

/* NULL stays NULL. */
static enum err text_take(const PGresult *r, int row, int column, struct arena *arena,
                          const char **ret_text)
{
    const char *v = db_value(r, row, column);
    *ret_text = v ? arena_strdup(arena, v) : NULL;
    return v && !*ret_text ? ERR_NO_MEMORY : ERR_OK;
}

static enum err entry_take(const PGresult *r, int row, struct arena *arena,
                           struct gate_entry *entry)
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
    enum err e = text_take(r, row, C_POLICIES, arena, &entry->policies);
    return e ? e : text_take(r, row, C_VALUES, arena, &entry->thing_values);
}

static enum err page_load(struct db *db, struct arena *arena, const struct stmt *stmt,
                          const char *const *params, unsigned most, struct gate_page *ret_page)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, stmt, params, &r, NULL);
    if (e)
        return e;
    int rows = PQntuples(r);
    struct gate_page page = {.count = (size_t)rows, .more = rows > 0 && (unsigned)rows == most};
    page.entries = arena_alloc(arena, (page.count + 1) * sizeof(*page.entries));
    if (!page.entries)
        return ERR_NO_MEMORY;
    for (int i = 0; i < rows && !e; i++)
        e = entry_take(r, i, arena, &page.entries[i]);
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
                           unsigned most, struct gate_page *ret_page)
{
    char base[NUMBER_BYTES], stable[NUMBER_BYTES], position[NUMBER_BYTES], id[NUMBER_BYTES];
    char limit[NUMBER_BYTES];
    const char *params[] = {number(cursor->base, base),
                            number(cursor->stable, stable),
                            cursor->seen,
                            number(cursor->after_position, position),
                            number(cursor->after_id, id),
                            number(most, limit)};
    return page_load(db, arena, &stmts[S_CHANGES], params, most, ret_page);
}

static enum err snapshot_load(struct db *db, struct arena *arena, const struct stmt *stmt,
                              int64_t after, unsigned most, struct gate_page *ret_page)
{
    char id[NUMBER_BYTES], limit[NUMBER_BYTES];
    const char *params[] = {number(after, id), number(most, limit)};
    return page_load(db, arena, stmt, params, most, ret_page);
}

enum err gate_claims_load(struct db *db, struct arena *arena, int64_t after, unsigned most,
                          struct gate_page *ret_page)
{
    return snapshot_load(db, arena, &stmts[S_CLAIMS], after, most, ret_page);
}

enum err gate_certificates_load(struct db *db, struct arena *arena, int64_t after, unsigned most,
                                struct gate_page *ret_page)
{
    return snapshot_load(db, arena, &stmts[S_CERTIFICATES], after, most, ret_page);
}

enum err gate_policies_load(struct db *db, struct arena *arena, const char *numbers,
                            struct gate_policy **ret_policies, size_t *ret_count)
{
    const char *params[] = {arena_printf(arena, "{%s}", numbers)};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_POLICIES], params, &r, NULL);
    if (e)
        return e;
    size_t count = (size_t)PQntuples(r);
    struct gate_policy *policies = arena_alloc(arena, (count + 1) * sizeof(*policies));
    if (!policies)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < count && !e; i++) {
        policies[i].number = atoll(PQgetvalue(r, (int)i, 0));
        e = text_take(r, (int)i, 1, arena, &policies[i].document);
    }
    *ret_policies = policies;
    *ret_count = count;
    return e;
}

enum err gate_cas_load(struct db *db, struct arena *arena, struct bytes **ret_ders,
                       size_t *ret_count)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_CAS], NULL, &r, NULL);
    if (e)
        return e;
    size_t count = (size_t)PQntuples(r);
    struct bytes *ders = arena_alloc(arena, (count + 1) * sizeof(*ders));
    if (!ders)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < count && !e; i++)
        e = db_parse_bytea(arena, PQgetvalue(r, (int)i, 0), &ders[i]);
    *ret_ders = ders;
    *ret_count = count;
    return e;
}

enum err gate_one_load(struct db *db, struct arena *arena, struct bytes fingerprint,
                       const char *thing, int64_t product_id, struct gate_entry *ret_entry,
                       struct bytes *ret_der)
{
    char product[NUMBER_BYTES];
    const char *params[] = {fingerprint.len > 0 ? db_bytea(arena, fingerprint.data, fingerprint.len)
                                                : NULL,
                            thing, product_id != 0 ? number(product_id, product) : NULL};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_ONE], params, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_NOT_FOUND;
    e = entry_take(r, 0, arena, ret_entry);
    return e ? e : db_parse_bytea(arena, PQgetvalue(r, 0, C_DER), ret_der);
}
