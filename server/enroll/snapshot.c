#include "enroll/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json_out.h"
#include "base/log.h"
#include "enroll/psk.h"
#include "enroll/secrets.h"
#include "pki/seal.h"
#include "store/catalog_load.h"

void snapshot_drop(struct snapshot *s)
{
    if (!s || atomic_fetch_sub(&s->references, 1) != 1)
        return;
    for (size_t i = 0; i < s->template_count; i++)
        template_free(s->templates[i].compiled);
    for (size_t i = 0; i < s->issuer_count; i++)
        issuer_free(s->issuers[i]);
    trust_free(s->trust);
    arena_done(&s->arena);
    free(s);
}

static enum err products_take(struct snapshot *s, const struct catalog_rows *rows)
{
    s->products = arena_alloc(&s->arena, rows->product_count * sizeof(*s->products));
    if (!s->products)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < rows->product_count; i++) {
        const struct product_row *r = &rows->products[i];
        struct catalog_product *p = &s->products[s->product_count++];
        *p = (struct catalog_product){.id = r->id, .name = r->name};
        p->rule.strip_separators = r->strip_separators;
        enum err e = serial_case_parse(r->serial_case, &p->rule.letter_case);
        if (e)
            return e;
    }
    return ERR_OK;
}

static const struct catalog_product *product_by_id(const struct snapshot *s, int64_t id)
{
    for (size_t i = 0; i < s->product_count; i++) {
        if (s->products[i].id == id)
            return &s->products[i];
    }
    return NULL;
}

/* Logs a document that the registry holds but this binary refuses; the others go on. */
static void log_bad_template(const char *name, const struct template_error *error)
{
    struct buf b;
    log_begin(&b, LOG_ERROR, "catalog.template_refused");
    json_text(&b, "template", name);
    json_text(&b, "path", error->path);
    json_text(&b, "message", error->message);
    log_end(&b, LOG_ERROR);
}

static enum err template_take(struct snapshot *s, const struct template_row *r)
{
    struct catalog_template *t = &s->templates[s->template_count];
    struct template_error error = {0};
    struct template *compiled = NULL;
    const struct catalog_product *product = product_by_id(s, r->product_id);
    if (!product)
        return ERR_OK; /* made after the products were read: the epoch has moved on */
    enum err e = template_compile(r->body, strlen(r->body), &compiled, &error);
    if (e == ERR_INVALID) {
        log_bad_template(r->name, &error);
        return ERR_OK;
    }
    if (e)
        return e;
    *t = (struct catalog_template){
        .id = r->id,
        .name = r->name,
        .version = r->version,
        .label = arena_printf(&s->arena, "%s@%d", r->name, r->version),
        .product = product,
        .compiled = compiled,
    };
    s->template_count++;
    return t->label ? ERR_OK : ERR_NO_MEMORY;
}

static enum err templates_take(struct snapshot *s, const struct catalog_rows *rows)
{
    s->templates = arena_alloc(&s->arena, rows->template_count * sizeof(*s->templates));
    enum err e = s->templates ? ERR_OK : ERR_NO_MEMORY;
    for (size_t i = 0; i < rows->template_count && !e; i++)
        e = template_take(s, &rows->templates[i]);
    return e;
}

static enum catalog_ca_kind ca_kind(const char *kind)
{
    if (strcmp(kind, "root") == 0)
        return CATALOG_ROOT;
    if (strcmp(kind, "issuing") == 0)
        return CATALOG_ISSUING;
    if (strcmp(kind, "rollover") == 0)
        return CATALOG_ROLLOVER;
    return strcmp(kind, "registered") == 0 ? CATALOG_REGISTERED : CATALOG_HELPER;
}

static enum catalog_jit ca_jit(const char *jit)
{
    if (strcmp(jit, "jitp") == 0)
        return JIT_PROVISION;
    return strcmp(jit, "jitr") == 0 ? JIT_REGISTER : JIT_OFF;
}

static void log_bad_issuer(const char *name, enum err e)
{
    struct buf b;
    log_begin(&b, LOG_ERROR, "catalog.issuer_unusable");
    json_text(&b, "ca", name);
    json_text(&b, "reason",
              e == ERR_DENIED ? "the key file must be private to its owner (mode 0600)"
                              : err_name(e));
    log_end(&b, LOG_ERROR);
}

/* An issuer whose key cannot be used is logged and left out. A token that is away is asked again.
 */
static void issuer_take(struct snapshot *s, const struct ca_cached_row *r,
                        const struct signer_source *keys)
{
    struct signer *signer = NULL;
    enum err e = s->issuer_count < SNAPSHOT_MAX_ISSUERS ? ERR_OK : ERR_INVALID;
    if (!e)
        e = signer_open(keys, r->key_reference, &signer);
    s->lacks_key |= e == ERR_UNAVAILABLE;
    if (!e)
        e = issuer_new(r->id, r->name, r->der, signer, &s->issuers[s->issuer_count]);
    if (!e) {
        s->issuer_count++;
        return;
    }
    signer_free(signer);
    log_bad_issuer(r->name, e);
}

/* Whose CA it is and who stands above it, for chains. */
static enum err names_take(struct snapshot *s, struct catalog_ca *ca)
{
    _cleanup_(cert_freep) X509 *x = NULL;
    struct cert_info info;
    if (ca->kind != CATALOG_ROOT && ca->kind != CATALOG_ISSUING)
        return ERR_OK;
    enum err e = cert_decode(ca->der, &x);
    if (!e)
        e = cert_describe(&s->arena, x, &info);
    if (e)
        return e;
    ca->subject_der = info.subject_der;
    ca->issuer_der = info.issuer_der;
    ca->ski = info.ski;
    return ERR_OK;
}

static enum err cas_take(struct snapshot *s, const struct catalog_rows *rows,
                         const struct signer_source *keys)
{
    s->cas = arena_alloc(&s->arena, rows->ca_count * sizeof(*s->cas));
    if (!s->cas)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < rows->ca_count; i++) {
        const struct ca_cached_row *r = &rows->cas[i];
        s->cas[s->ca_count++] = (struct catalog_ca){
            .id = r->id,
            .kind = ca_kind(r->kind),
            .active = r->active,
            .has_claims = r->has_claims,
            .jit = ca_jit(r->jit),
            .has_devices = r->has_devices,
            .trust_until_s = r->trust_until_s,
            .trust_template_id = r->trust_template_id,
            .crl_required = r->crl_required,
            .crl = r->crl,
            .name = r->name,
            .der = r->der,
            .template_id = r->template_id,
            .product_id = r->product_id,
            .template = r->template_id ? snapshot_template_by_id(s, r->template_id) : NULL,
        };
        if (r->key_reference && r->active)
            issuer_take(s, r, keys);
        enum err e = names_take(s, &s->cas[s->ca_count - 1]);
        if (e)
            return e;
    }
    return ERR_OK;
}

/* Our own CAs vouch for renewals even when they no longer sign; a registered one only while it
 * is active. */
static enum err trust_take(struct snapshot *s)
{
    struct trust_ca *set = arena_alloc(&s->arena, s->ca_count * sizeof(*set));
    if (!set)
        return ERR_NO_MEMORY;
    size_t n = 0;
    for (size_t i = 0; i < s->ca_count; i++) {
        const struct catalog_ca *ca = &s->cas[i];
        if (ca->kind == CATALOG_ROLLOVER)
            continue; /* both roots are anchors themselves */
        enum trust_role role = ca->kind == CATALOG_HELPER ? TRUST_HELPER : TRUST_ANCHOR;
        if (ca->kind == CATALOG_REGISTERED && !ca->active)
            role = TRUST_REFUSED;
        set[n++] = (struct trust_ca){.der = ca->der,
                                     .role = role,
                                     .id = ca->id,
                                     .crl = ca->crl,
                                     .crl_required = ca->crl_required};
    }
    return trust_new(set, n, &s->trust);
}

/* Sealed for that slot of that group, and nowhere else. */
static enum err master_open(struct snapshot *s, const struct sealer *sealer,
                            const struct psk_row *r, enum secrets_slot slot, struct bytes *ret)
{
    _cleanup_(buf_donep) struct buf place = {0}, key = {0};
    buf_init(&place, SECRETS_MAX_PLACE_BYTES);
    buf_init(&key, SECRETS_MAX_KEY_BYTES);
    secrets_place(&place, true, r->name_lower, slot);
    enum err e =
        place.overflow ? ERR_INVALID : seal_open(sealer, buf_text(&place), r->keys[slot], &key);
    if (e)
        return e;
    void *copy = arena_copy(&s->arena, key.data, key.len);
    *ret = bytes_of(copy, copy ? key.len : 0);
    secret_cleanse(key.data, key.len);
    return copy ? ERR_OK : ERR_NO_MEMORY;
}

/* Both masters or none: a group that is half open would let half its devices in. */
static enum err masters_open(struct snapshot *s, const struct sealer *sealer,
                             const struct psk_row *r, struct catalog_psk *psk)
{
    struct bytes masters[2];
    enum err e = sealer ? ERR_OK : ERR_UNAVAILABLE;
    for (enum secrets_slot i = SECRETS_PRIMARY; i <= SECRETS_SECONDARY && !e; i++)
        e = master_open(s, sealer, r, i, &masters[i]);
    if (e == ERR_NO_MEMORY)
        return e;
    if (e) {
        log_text(LOG_ERROR, "catalog.psk_group_unusable", "group", r->name);
        return ERR_OK;
    }
    memcpy(psk->masters, masters, sizeof(masters));
    return ERR_OK;
}

static enum err psks_take(struct snapshot *s, const struct catalog_rows *rows,
                          const struct sealer *sealer)
{
    s->psks = arena_alloc(&s->arena, rows->psk_count * sizeof(*s->psks));
    enum err e = s->psks ? ERR_OK : ERR_NO_MEMORY;
    for (size_t i = 0; i < rows->psk_count && !e; i++) {
        const struct psk_row *r = &rows->psks[i];
        const struct catalog_product *product = product_by_id(s, r->product_id);
        if (!product)
            continue; /* made after the products were read: the epoch has moved on */
        s->psks[s->psk_count] = (struct catalog_psk){.id = r->id,
                                                     .name = r->name,
                                                     .product = product,
                                                     .template_id = r->template_id,
                                                     .enabled = r->enabled};
        e = masters_open(s, sealer, r, &s->psks[s->psk_count++]);
    }
    return e;
}

enum err snapshot_load(struct db *db, const struct signer_source *keys, const struct sealer *sealer,
                       struct snapshot **ret_snapshot)
{
    struct snapshot *s = calloc(1, sizeof(*s));
    if (!s)
        return ERR_NO_MEMORY;
    atomic_store(&s->references, 1);
    arena_init(&s->arena, CATALOG_ARENA_BYTES);
    struct catalog_rows rows = {0};
    enum err e = catalog_load(db, &s->arena, &rows);
    s->epoch = rows.epoch;
    s->loaded_us = clock_mono_us();
    if (!e)
        e = products_take(s, &rows);
    if (!e)
        e = templates_take(s, &rows);
    if (!e)
        e = cas_take(s, &rows, keys);
    if (!e)
        e = trust_take(s);
    if (!e)
        e = psks_take(s, &rows, sealer);
    if (e)
        snapshot_drop(s);
    else
        *ret_snapshot = s;
    return e;
}
