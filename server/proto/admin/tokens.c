/* Tokens: made here, so that the database never sees their text; hashed there. */
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "enroll/catalog.h"
#include "enroll/service.h"
#include "enroll/template.h"
#include "enroll/token_text.h"
#include "proto/admin/hooks.h"

enum { DEFAULT_LIFE_S = 30 * 86400 };

/* The texts of a call between its statement and its answer; the session stays first. */
struct minted {
    struct admin_session session;
    const char **texts;
    size_t count;
};

static enum err mint(struct exchange *x, const char *prefix, const char **ret_text,
                     json_t **ret_hash)
{
    char text[TOKEN_TEXT_BYTES];
    uint8_t hash[SHA256_BYTES];
    enum err e = token_text_new(prefix, text, hash);
    if (e)
        return fault_set(&x->fault, FAULT_INTERNAL, "making a token: %s", err_name(e));
    const char *hex = text_hex(x->arena, bytes_of(hash, sizeof(hash)));
    const char *copy = arena_strdup(x->arena, text);
    secret_cleanse(text, sizeof(text));
    json_t *value = hex ? json_string(hex) : NULL;
    if (!copy || !value)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    *ret_text = copy;
    *ret_hash = value;
    return ERR_OK;
}

static enum err mint_all(struct exchange *x, json_t *args, size_t count)
{
    const struct admin_session *session = x->adapter;
    struct minted *m = arena_alloc(x->arena, sizeof(*m));
    json_t *hashes = json_array();
    if (!m || !hashes || json_object_set_new(args, "hashes", hashes) != 0)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    m->session = *session;
    m->texts = arena_alloc(x->arena, count * sizeof(*m->texts));
    if (!m->texts)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    enum err e = ERR_OK;
    while (m->count < count && !e) {
        json_t *hash = NULL;
        e = mint(x, "mst_", &m->texts[m->count], &hash);
        if (!e && json_array_append_new(hashes, hash) != 0)
            e = fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
        m->count += !e;
    }
    x->adapter = &m->session;
    return e;
}

/* serial, serials and count say how many; a single serial becomes a list of one. */
static enum err count_take(struct exchange *x, json_t *args, size_t *ret_count)
{
    json_t *serial = json_object_get(args, "serial");
    json_t *serials = json_object_get(args, "serials");
    json_t *count = json_object_get(args, "count");
    int64_t uses = json_integer_value(json_object_get(args, "uses"));
    if ((serial != NULL) + (serials != NULL) + (count != NULL) > 1)
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                         "serial, serials and count exclude each other");
    if (uses > 1 && (serial || serials))
        return fault_set(&x->fault, FAULT_REQUEST_MALFORMED,
                         "a token bound to a serial has one use");
    if (serial && json_object_set_new(args, "serials", json_pack("[O]", serial)) != 0)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    *ret_count = serials ? json_array_size(serials) : 1;
    if (count)
        *ret_count = (size_t)json_integer_value(count);
    return *ret_count > 0 ? ERR_OK
                          : fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "serials is empty");
}

/* Grace is the template's where the call does not say. */
static enum err defaults_add(struct service *service, struct exchange *x, json_t *args)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    int64_t grace_s = 3600;
    const char *name = json_string_value(json_object_get(args, "template"));
    catalog_expire(service->catalog);
    if (catalog_get(service->catalog, &snapshot))
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    const struct catalog_template *t = snapshot_template(snapshot, name);
    if (t)
        grace_s = template_settings(t->compiled)->grace_s;
    int rc = 0;
    if (!json_object_get(args, "grace_s"))
        rc |= json_object_set_new(args, "grace_s", json_integer(grace_s));
    if (!json_object_get(args, "expires_in_s"))
        rc |= json_object_set_new(args, "expires_in_s", json_integer(DEFAULT_LIFE_S));
    if (!json_object_get(args, "uses"))
        rc |= json_object_set_new(args, "uses", json_integer(1));
    return rc ? fault_set(&x->fault, FAULT_INTERNAL, "out of memory") : ERR_OK;
}

enum err token_create_before(struct service *service, struct exchange *x, json_t *args)
{
    size_t count = 0;
    enum err e = count_take(x, args, &count);
    if (!e)
        e = defaults_add(service, x, args);
    return e ? e : mint_all(x, args, count);
}

/* Rows come in the order of the hashes; the hash itself is nobody's business. */
enum err token_create_after(struct service *service, struct exchange *x, const json_t *args,
                            json_t *answer)
{
    const struct minted *m = (const struct minted *)x->adapter;
    const json_t *hashes = json_object_get(args, "hashes");
    (void)service;
    for (size_t i = 0; i < json_array_size(answer); i++) {
        json_t *row = json_array_get(answer, i);
        const char *hash = json_string_value(json_object_get(row, "hash"));
        if (i >= m->count || !hash ||
            strcmp(hash, json_string_value(json_array_get(hashes, i))) != 0)
            return fault_set(&x->fault, FAULT_INTERNAL, "the tokens came back in another order");
        (void)json_object_del(row, "hash");
        if (json_object_set_new(row, "token", json_string(m->texts[i])) != 0)
            return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    }
    return ERR_OK;
}

static enum err one_before(struct exchange *x, json_t *args, const char *prefix)
{
    struct minted *m = arena_alloc(x->arena, sizeof(*m));
    json_t *hash = NULL;
    if (!m || !(m->texts = arena_alloc(x->arena, sizeof(*m->texts))))
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    m->session = *(const struct admin_session *)x->adapter;
    m->count = 1;
    enum err e = mint(x, prefix, &m->texts[0], &hash);
    if (e)
        return e;
    x->adapter = &m->session;
    return json_object_set_new(args, "hash", hash) == 0
               ? ERR_OK
               : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
}

enum err token_one_before(struct service *service, struct exchange *x, json_t *args)
{
    (void)service;
    return one_before(x, args, "mst_");
}

enum err admin_token_before(struct service *service, struct exchange *x, json_t *args)
{
    (void)service;
    return one_before(x, args, "mat_");
}

enum err token_one_after(struct service *service, struct exchange *x, const json_t *args,
                         json_t *answer)
{
    const struct minted *m = (const struct minted *)x->adapter;
    (void)service;
    (void)args;
    if (json_object_set_new(answer, "token", json_string(m->texts[0])) != 0)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    return ERR_OK;
}
