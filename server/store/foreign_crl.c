#include "store/foreign_crl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/text.h"

static const struct stmt stmts[] = {
    {"foreign_listed", "SELECT id, der FROM foreign_listed($1::text[])", 1},
    {"foreign_revoke", "SELECT foreign_revoke($1::bigint, $2)", 2},
    {"foreign_recent",
     "SELECT c.name, c.certificate, x.der FROM ca_crl x JOIN ca c ON c.id = x.ca_id"
     " WHERE c.crl_mode <> 'off' AND x.apply_until > clock_timestamp()",
     0},
    {"foreign_close", "SELECT ca_crl_close()", 0},
};
const struct stmt_set foreign_crl_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_LISTED, S_REVOKE, S_RECENT, S_CLOSE };
enum { NUMBER_BYTES = 24, MAX_NUMBERS_BYTES = 16 << 20 };

static enum err numbers_add(struct arena *arena, const struct bytes *numbers, size_t count,
                            struct buf *b)
{
    buf_add_char(b, '{');
    for (size_t i = 0; i < count; i++) {
        const char *hex = text_hex(arena, numbers[i]);
        if (!hex)
            return ERR_NO_MEMORY;
        buf_printf(b, "%s%s", i > 0 ? "," : "", hex);
    }
    buf_add_char(b, '}');
    return b->overflow ? ERR_NO_MEMORY : ERR_OK;
}

enum err foreign_listed(struct db *db, struct arena *arena, const struct bytes *numbers,
                        size_t count, struct foreign_cert **ret_rows, size_t *ret_count)
{
    _cleanup_(buf_donep) struct buf b = {0};
    DB_RESULT r = NULL;
    buf_init(&b, MAX_NUMBERS_BYTES);
    enum err e = numbers_add(arena, numbers, count, &b);
    const char *params[] = {buf_text(&b)};
    if (!e)
        e = db_query(db, &stmts[S_LISTED], params, &r, NULL);
    if (e)
        return e;
    size_t n = (size_t)PQntuples(r);
    struct foreign_cert *rows = arena_alloc(arena, (n + 1) * sizeof(*rows));
    e = rows ? ERR_OK : ERR_NO_MEMORY;
    for (size_t i = 0; i < n && !e; i++) {
        rows[i].id = atoll(PQgetvalue(r, (int)i, 0));
        e = db_parse_bytea(arena, PQgetvalue(r, (int)i, 1), &rows[i].der);
    }
    *ret_rows = rows;
    *ret_count = n;
    return e;
}

enum err foreign_revoke(struct db *db, int64_t certificate_id, const char *reason, bool *ret_new)
{
    char id[NUMBER_BYTES];
    const char *params[] = {id, reason};
    DB_RESULT r = NULL;
    snprintf(id, sizeof(id), "%" PRId64, certificate_id);
    enum err e = db_query(db, &stmts[S_REVOKE], params, &r, NULL);
    if (!e)
        *ret_new = PQgetvalue(r, 0, 0)[0] == 't';
    return e;
}

static enum err recent_take(const PGresult *r, int row, struct arena *arena,
                            struct foreign_crl *ret)
{
    ret->ca = arena_strdup(arena, PQgetvalue(r, row, 0));
    enum err e = ret->ca ? ERR_OK : ERR_NO_MEMORY;
    if (!e)
        e = db_parse_bytea(arena, PQgetvalue(r, row, 1), &ret->ca_der);
    return e ? e : db_parse_bytea(arena, PQgetvalue(r, row, 2), &ret->der);
}

enum err foreign_recent(struct db *db, struct arena *arena, struct foreign_crl **ret_rows,
                        size_t *ret_count)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_RECENT], NULL, &r, NULL);
    if (e)
        return e;
    size_t n = (size_t)PQntuples(r);
    struct foreign_crl *rows = arena_alloc(arena, (n + 1) * sizeof(*rows));
    e = rows ? ERR_OK : ERR_NO_MEMORY;
    for (size_t i = 0; i < n && !e; i++)
        e = recent_take(r, (int)i, arena, &rows[i]);
    *ret_rows = rows;
    *ret_count = n;
    return e;
}

enum err foreign_close(struct db *db, int *ret_moved)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_CLOSE], NULL, &r, NULL);
    if (!e)
        *ret_moved = atoi(PQgetvalue(r, 0, 0));
    return e;
}
