#include "store/enrollment.h"
#include "base/cleanup.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_BYTES = 24 };

/* As utc() of the schema writes times, which costs more than the rest of the statement. */
#define RFC3339 "'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"

static const struct stmt stmts[] = {
    {"enrollment_candidates",
     "SELECT id, grouped, enabled, attestation, name, name_lower, serial, template_id, primary_key,"
     " secondary_key, primary_certificate, secondary_certificate, endorsement, storage_root,"
     " roots FROM enrollment_candidates($1, $2, $3::bigint)",
     3},
    {"assignment_get",
     "SELECT dps_standing(g, $3), g.registration_id, g.device_name, g.endpoint, g.substatus, "
     "g.etag,"
     " to_char(g.created_at AT TIME ZONE 'UTC', " RFC3339 ","
     " to_char(g.updated_at AT TIME ZONE 'UTC', " RFC3339 ","
     " x.payload::text, CASE WHEN x.grouped THEN x.name END"
     " FROM dps_registration g JOIN enrollment x ON x.id = g.enrollment_id"
     " WHERE g.registration_id = $1 AND g.enrollment_id = $2::bigint AND g.endpoint <> ''",
     3},
    {"operation_keep", "SELECT dps_operation_keep($1, $2, $3)", 3},
    {"operation_get",
     "SELECT body FROM dps_operation WHERE registration_id = $1 AND operation = $2", 2},
    {"secret_key_keep", "SELECT secret_key_keep($1)", 1},
};
const struct stmt_set enrollment_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_CANDIDATES, S_ASSIGNMENT, S_KEEP, S_GET, S_SECRET };

static const char *const attestation_names[] = {"symmetric-key", "x509", "tpm", "psk"};

static enum attestation attestation_parse(const char *text)
{
    enum attestation a = ATTEST_SYMMETRIC;
    while (a < ATTEST_PSK && strcmp(text, attestation_names[a]) != 0)
        a++;
    return a;
}

static enum err row_take(const PGresult *r, int row, struct arena *arena,
                         struct enrollment_row *ret_row)
{
    const char *serial = db_value(r, row, 6), *roots = db_value(r, row, 14);
    *ret_row = (struct enrollment_row){
        .id = atoll(PQgetvalue(r, row, 0)),
        .grouped = PQgetvalue(r, row, 1)[0] == 't',
        .enabled = PQgetvalue(r, row, 2)[0] == 't',
        .attestation = attestation_parse(PQgetvalue(r, row, 3)),
        .name = arena_strdup(arena, PQgetvalue(r, row, 4)),
        .name_lower = arena_strdup(arena, PQgetvalue(r, row, 5)),
        .serial = serial ? arena_strdup(arena, serial) : NULL,
        .template_id = atoll(PQgetvalue(r, row, 7)),
        .roots = roots ? arena_strdup(arena, roots) : NULL,
    };
    struct bytes *const bytes[] = {&ret_row->keys[0],         &ret_row->keys[1],
                                   &ret_row->certificates[0], &ret_row->certificates[1],
                                   &ret_row->endorsement,     &ret_row->storage_root};
    enum err e = ret_row->name && ret_row->name_lower && (!serial || ret_row->serial) &&
                         (!roots || ret_row->roots)
                     ? ERR_OK
                     : ERR_NO_MEMORY;
    for (size_t i = 0; i < ARRAY_LEN(bytes) && !e; i++) {
        const char *text = db_value(r, row, 8 + (int)i);
        e = text ? db_parse_bytea(arena, text, bytes[i]) : ERR_OK;
    }
    return e;
}

enum err enrollment_candidates(struct db *db, const char *registration_id, enum attestation kind,
                               int64_t ca_id, struct arena *arena, struct enrollment_row **ret_rows,
                               size_t *ret_count)
{
    char ca[NUMBER_BYTES];
    snprintf(ca, sizeof(ca), "%" PRId64, ca_id);
    const char *params[] = {registration_id, attestation_names[kind], ca};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_CANDIDATES], params, &r, NULL);
    if (e)
        return e;
    int count = PQntuples(r);
    struct enrollment_row *rows =
        arena_alloc(arena, (size_t)(count > 0 ? count : 1) * sizeof(*rows));
    e = rows ? ERR_OK : ERR_NO_MEMORY;
    for (int i = 0; i < count && !e; i++)
        e = row_take(r, i, arena, &rows[i]);
    if (e)
        return e;
    *ret_rows = rows;
    *ret_count = (size_t)count;
    return ERR_OK;
}

enum err assignment_get(struct db *db, const char *registration_id, int64_t enrollment_id,
                        struct bytes certificate, struct arena *arena,
                        struct assignment *ret_assignment)
{
    char id[NUMBER_BYTES];
    snprintf(id, sizeof(id), "%" PRId64, enrollment_id);
    const char *params[] = {registration_id, id,
                            db_bytea(arena, certificate.data, certificate.len)};
    DB_RESULT r = NULL;
    if (certificate.len > 0 && !params[2])
        return ERR_NO_MEMORY;
    enum err e = db_query(db, &stmts[S_ASSIGNMENT], params, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_NOT_FOUND;
    struct assignment a = {0};
    const char **const texts[] = {
        &a.standing, &a.registration_id, &a.device_id, &a.endpoint, &a.substatus,
        &a.etag,     &a.created,         &a.updated,   &a.payload,  &a.group};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        const char *text = db_value(r, 0, (int)i);
        *texts[i] = text ? arena_strdup(arena, text) : NULL;
        if (text && !*texts[i])
            return ERR_NO_MEMORY;
    }
    *ret_assignment = a;
    return ERR_OK;
}

enum err operation_keep(struct db *db, const char *registration_id, const char *operation,
                        const char *body)
{
    const char *params[] = {registration_id, operation, body};
    DB_RESULT r = NULL;
    return db_query(db, &stmts[S_KEEP], params, &r, NULL);
}

enum err operation_get(struct db *db, const char *registration_id, const char *operation,
                       struct arena *arena, const char **ret_body)
{
    const char *params[] = {registration_id, operation};
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_GET], params, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_NOT_FOUND;
    const char *body = arena_strdup(arena, PQgetvalue(r, 0, 0));
    if (!body)
        return ERR_NO_MEMORY;
    *ret_body = body;
    return ERR_OK;
}

enum err secret_key_keep(struct db *db, struct bytes made, struct arena *arena,
                         struct bytes *ret_wrapped)
{
    const char *params[] = {db_bytea(arena, made.data, made.len)};
    DB_RESULT r = NULL;
    enum err e = params[0] ? db_query(db, &stmts[S_SECRET], params, &r, NULL) : ERR_NO_MEMORY;
    if (e)
        return e;
    return PQntuples(r) == 1 ? db_parse_bytea(arena, PQgetvalue(r, 0, 0), ret_wrapped) : ERR_SYSTEM;
}
