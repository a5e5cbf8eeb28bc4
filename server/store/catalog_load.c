#include "store/catalog_load.h"

#include <stdlib.h>
#include <string.h>

static const struct stmt stmts[] = {
    {"catalog_epoch",
     "SELECT epoch, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM registry_epoch",
     0},
    {"catalog_products", "SELECT id, name, serial_case, strip_separators FROM product ORDER BY id",
     0},
    {"catalog_templates",
     "SELECT t.id, t.product_id, t.name, v.version, v.body"
     " FROM template t JOIN template_version v"
     " ON v.template_id = t.id AND v.version = t.default_version"
     " WHERE t.enabled ORDER BY t.id",
     0},
    {"catalog_cas",
     "SELECT c.id, c.kind, c.name, c.certificate, c.key_reference, c.active,"
     " coalesce(c.template_id, 0), coalesce(t.product_id, 0), c.has_claims,"
     " CASE WHEN c.auto_registration THEN c.jit ELSE '' END, c.has_devices,"
     " c.crl_mode = 'require', x.der,"
     " coalesce(extract(epoch FROM c.trusted_until)::bigint, 0), coalesce(c.trust_template_id, 0)"
     " FROM ca c LEFT JOIN template t ON t.id = c.template_id"
     " LEFT JOIN ca_crl x ON x.ca_id = c.id AND c.crl_mode <> 'off' ORDER BY c.id",
     0},
    {"catalog_psks",
     "SELECT id, name, name_lower, product_id, template_id, enabled, primary_key, secondary_key"
     " FROM enrollment WHERE attestation = 'psk' ORDER BY id",
     0},
};
const struct stmt_set catalog_statements = {stmts, ARRAY_LEN(stmts)};

enum { S_EPOCH, S_PRODUCTS, S_TEMPLATES, S_CAS, S_PSKS };

enum err catalog_epoch(struct db *db, int64_t *ret_epoch, int64_t *ret_wall_us)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_EPOCH], NULL, &r, NULL);
    if (e)
        return e;
    if (PQntuples(r) != 1)
        return ERR_SYSTEM;
    *ret_epoch = atoll(PQgetvalue(r, 0, 0));
    *ret_wall_us = atoll(PQgetvalue(r, 0, 1));
    return ERR_OK;
}

static bool is_true(const PGresult *r, int row, int column)
{
    return PQgetvalue(r, row, column)[0] == 't';
}

static enum err products_load(struct db *db, struct arena *arena, struct catalog_rows *rows)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_PRODUCTS], NULL, &r, NULL);
    if (e)
        return e;
    rows->product_count = (size_t)PQntuples(r);
    rows->products = arena_alloc(arena, rows->product_count * sizeof(*rows->products));
    for (int i = 0; rows->products && i < PQntuples(r); i++) {
        rows->products[i] = (struct product_row){
            .id = atoll(PQgetvalue(r, i, 0)),
            .name = arena_strdup(arena, PQgetvalue(r, i, 1)),
            .serial_case = arena_strdup(arena, PQgetvalue(r, i, 2)),
            .strip_separators = is_true(r, i, 3),
        };
        if (!rows->products[i].name || !rows->products[i].serial_case)
            return ERR_NO_MEMORY;
    }
    return rows->products ? ERR_OK : ERR_NO_MEMORY;
}

static enum err templates_load(struct db *db, struct arena *arena, struct catalog_rows *rows)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_TEMPLATES], NULL, &r, NULL);
    if (e)
        return e;
    rows->template_count = (size_t)PQntuples(r);
    rows->templates = arena_alloc(arena, rows->template_count * sizeof(*rows->templates));
    for (int i = 0; rows->templates && i < PQntuples(r); i++) {
        rows->templates[i] = (struct template_row){
            .id = atoll(PQgetvalue(r, i, 0)),
            .product_id = atoll(PQgetvalue(r, i, 1)),
            .name = arena_strdup(arena, PQgetvalue(r, i, 2)),
            .version = atoi(PQgetvalue(r, i, 3)),
            .body = arena_strdup(arena, PQgetvalue(r, i, 4)),
        };
        if (!rows->templates[i].name || !rows->templates[i].body)
            return ERR_NO_MEMORY;
    }
    return rows->templates ? ERR_OK : ERR_NO_MEMORY;
}

static enum err ca_load(const PGresult *r, int i, struct arena *arena, struct ca_cached_row *ret)
{
    const char *reference = db_value(r, i, 4);
    *ret = (struct ca_cached_row){
        .id = atoll(PQgetvalue(r, i, 0)),
        .kind = arena_strdup(arena, PQgetvalue(r, i, 1)),
        .name = arena_strdup(arena, PQgetvalue(r, i, 2)),
        .key_reference = reference ? arena_strdup(arena, reference) : NULL,
        .active = is_true(r, i, 5),
        .template_id = atoll(PQgetvalue(r, i, 6)),
        .product_id = atoll(PQgetvalue(r, i, 7)),
        .has_claims = is_true(r, i, 8),
        .jit = arena_strdup(arena, PQgetvalue(r, i, 9)),
        .has_devices = is_true(r, i, 10),
        .crl_required = is_true(r, i, 11),
        .trust_until_s = atoll(PQgetvalue(r, i, 13)),
        .trust_template_id = atoll(PQgetvalue(r, i, 14)),
    };
    const char *crl = db_value(r, i, 12);
    if (!ret->kind || !ret->name || !ret->jit || (reference && !ret->key_reference))
        return ERR_NO_MEMORY;
    enum err e = db_parse_bytea(arena, PQgetvalue(r, i, 3), &ret->der);
    return e || !crl ? e : db_parse_bytea(arena, crl, &ret->crl);
}

static enum err cas_load(struct db *db, struct arena *arena, struct catalog_rows *rows)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_CAS], NULL, &r, NULL);
    if (e)
        return e;
    rows->ca_count = (size_t)PQntuples(r);
    rows->cas = arena_alloc(arena, rows->ca_count * sizeof(*rows->cas));
    if (!rows->cas)
        return ERR_NO_MEMORY;
    for (int i = 0; i < PQntuples(r) && !e; i++)
        e = ca_load(r, i, arena, &rows->cas[i]);
    return e;
}

static enum err psk_load(const PGresult *r, int i, struct arena *arena, struct psk_row *ret)
{
    *ret = (struct psk_row){
        .id = atoll(PQgetvalue(r, i, 0)),
        .name = arena_strdup(arena, PQgetvalue(r, i, 1)),
        .name_lower = arena_strdup(arena, PQgetvalue(r, i, 2)),
        .product_id = atoll(PQgetvalue(r, i, 3)),
        .template_id = atoll(PQgetvalue(r, i, 4)),
        .enabled = is_true(r, i, 5),
    };
    enum err e = ret->name && ret->name_lower ? ERR_OK : ERR_NO_MEMORY;
    for (int k = 0; k < 2 && !e; k++)
        e = db_parse_bytea(arena, PQgetvalue(r, i, 6 + k), &ret->keys[k]);
    return e;
}

static enum err psks_load(struct db *db, struct arena *arena, struct catalog_rows *rows)
{
    DB_RESULT r = NULL;
    enum err e = db_query(db, &stmts[S_PSKS], NULL, &r, NULL);
    if (e)
        return e;
    rows->psk_count = (size_t)PQntuples(r);
    rows->psks = arena_alloc(arena, rows->psk_count * sizeof(*rows->psks));
    if (!rows->psks)
        return ERR_NO_MEMORY;
    for (int i = 0; i < PQntuples(r) && !e; i++)
        e = psk_load(r, i, arena, &rows->psks[i]);
    return e;
}

enum err catalog_load(struct db *db, struct arena *arena, struct catalog_rows *ret_rows)
{
    struct catalog_rows rows = {0};
    int64_t wall_us = 0;
    enum err e = catalog_epoch(db, &rows.epoch, &wall_us);
    if (!e)
        e = products_load(db, arena, &rows);
    if (!e)
        e = templates_load(db, arena, &rows);
    if (!e)
        e = cas_load(db, arena, &rows);
    if (!e)
        e = psks_load(db, arena, &rows);
    if (!e)
        *ret_rows = rows;
    return e;
}
