#include "enroll/catalog.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json_out.h"
#include "base/log.h"
#include "store/catalog_load.h"

enum {
    CHECK_EVERY_US = 1000000,
    OLD_US = 2000000,
    WAIT_MS = 500,
    MAX_ISSUERS = 64,
    TOKEN_AGAIN_US = 10000000,
};

struct snapshot {
    atomic_int references;
    struct arena arena;
    int64_t epoch;
    struct catalog_product *products;
    size_t product_count;
    struct catalog_template *templates;
    size_t template_count;
    struct catalog_ca *cas;
    size_t ca_count;
    struct issuer *issuers[MAX_ISSUERS];
    size_t issuer_count;
    struct trust *trust;
    bool lacks_key; /* a token was away */
    int64_t loaded_us;
};

struct catalog {
    struct db *db;
    const struct signer_source *keys;
    pthread_mutex_t lock; /* guards what follows */
    struct snapshot *current;
    int64_t checked_us;   /* monotonic; 0: never */
    int64_t expired_us;   /* likewise: a look that began before then has not seen our change */
    int64_t confirmed_us; /* when the registry last said that current is right */
    int64_t wall_at_us; /* the registry's time of day when the monotonic clock was 0; 0: unknown */
    int64_t failed_us;  /* when an issuing key was said not to sign */
    bool stale;         /* current is replaced at the next look whatever its epoch */
    bool loading;       /* somebody is: one at a time */
    pthread_cond_t loaded; /* nobody is any more; on the monotonic clock */
};

enum err catalog_new(struct db *db, const struct signer_source *keys, struct catalog **ret_catalog)
{
    struct catalog *c = calloc(1, sizeof(*c));
    if (!c)
        return ERR_NO_MEMORY;
    c->db = db;
    c->keys = keys;
    c->confirmed_us = clock_mono_us();
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->loaded, &attr);
    pthread_condattr_destroy(&attr);
    *ret_catalog = c;
    return ERR_OK;
}

void catalog_free(struct catalog *c)
{
    if (!c)
        return;
    snapshot_drop(c->current);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->loaded);
    free(c);
}

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
    enum err e = s->issuer_count < MAX_ISSUERS ? ERR_OK : ERR_INVALID;
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

static enum err snapshot_load(struct catalog *c, struct snapshot **ret_snapshot)
{
    struct snapshot *s = calloc(1, sizeof(*s));
    if (!s)
        return ERR_NO_MEMORY;
    atomic_store(&s->references, 1);
    arena_init(&s->arena, CATALOG_ARENA_BYTES);
    struct catalog_rows rows = {0};
    enum err e = catalog_load(c->db, &s->arena, &rows);
    s->epoch = rows.epoch;
    s->loaded_us = clock_mono_us();
    if (!e)
        e = products_take(s, &rows);
    if (!e)
        e = templates_take(s, &rows);
    if (!e)
        e = cas_take(s, &rows, c->keys);
    if (!e)
        e = trust_take(s);
    if (e)
        snapshot_drop(s);
    else
        *ret_snapshot = s;
    return e;
}

/* How long ago the registry was asked about it last. */
static struct snapshot *current_take(struct catalog *c, int64_t *ret_age_us)
{
    pthread_mutex_lock(&c->lock);
    struct snapshot *s = c->current;
    if (s)
        atomic_fetch_add(&s->references, 1);
    *ret_age_us = s ? clock_mono_us() - c->checked_us : INT64_MAX;
    pthread_mutex_unlock(&c->lock);
    return s;
}

/* Installs a snapshot (NULL: the present one is still right) and notes the time of the look. */
static void time_note(struct catalog *c, int64_t looked_us, int64_t wall_us)
{
    int64_t now_us = clock_mono_us();
    pthread_mutex_lock(&c->lock);
    c->wall_at_us = wall_us - (looked_us + (now_us - looked_us) / 2);
    pthread_mutex_unlock(&c->lock);
}

static void current_install(struct catalog *c, struct snapshot *s, int64_t looked_us, bool right)
{
    pthread_mutex_lock(&c->lock);
    struct snapshot *old = s ? c->current : NULL;
    if (s)
        c->current = s;
    if (looked_us > c->expired_us)
        c->checked_us = looked_us;
    if (right)
        c->confirmed_us = looked_us;
    pthread_mutex_unlock(&c->lock);
    snapshot_drop(old);
}

/* Whether a reload was asked for; it is asked for no more. */
static bool stale_take(struct catalog *c)
{
    pthread_mutex_lock(&c->lock);
    bool stale = c->stale;
    c->stale = false;
    pthread_mutex_unlock(&c->lock);
    return stale;
}

static void stale_mark(struct catalog *c)
{
    pthread_mutex_lock(&c->lock);
    c->stale = true;
    pthread_mutex_unlock(&c->lock);
}

/* Having entered: looks at the epoch and reloads when it has moved. */
static void refresh(struct catalog *c, const struct snapshot *present)
{
    int64_t looked_us = clock_mono_us();
    int64_t epoch = 0, wall_us = 0;
    struct snapshot *loaded = NULL;
    bool again = present && present->lacks_key && looked_us - present->loaded_us >= TOKEN_AGAIN_US;
    bool stale = stale_take(c) || again;
    enum err e = catalog_epoch(c->db, &epoch, &wall_us);
    if (!e)
        time_note(c, looked_us, wall_us);
    if (!e && (stale || !present || present->epoch != epoch))
        e = snapshot_load(c, &loaded);
    if (e)
        log_text(LOG_WARN, "catalog.refresh_failed", "error", err_name(e));
    if (!e || present)
        current_install(c, loaded, e ? clock_mono_us() : looked_us, !e);
    if (e && stale)
        stale_mark(c);
}

static struct timespec monotonic_in_ms(long ms)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_nsec += ms * 1000000L;
    at.tv_sec += at.tv_nsec / 1000000000L;
    at.tv_nsec %= 1000000000L;
    return at;
}

/* Whether the caller is to look, and then loading_leave. While another one loads, what was right a
 * moment ago serves; what is older is waited for, but not for long: the database may be away. Only
 * who has nothing at all waits until the other one is done. */
static bool loading_enter(struct catalog *c, int64_t age_us)
{
    struct timespec until = monotonic_in_ms(WAIT_MS);
    int rc = age_us < OLD_US ? ETIMEDOUT : 0;
    pthread_mutex_lock(&c->lock);
    while (c->loading && rc != ETIMEDOUT)
        rc = age_us == INT64_MAX ? pthread_cond_wait(&c->loaded, &c->lock)
                                 : pthread_cond_timedwait(&c->loaded, &c->lock, &until);
    bool mine = !c->loading;
    if (mine)
        c->loading = true;
    pthread_mutex_unlock(&c->lock);
    return mine;
}

static void loading_leave(struct catalog *c)
{
    pthread_mutex_lock(&c->lock);
    c->loading = false;
    pthread_cond_broadcast(&c->loaded);
    pthread_mutex_unlock(&c->lock);
}

enum err catalog_get(struct catalog *c, struct snapshot **ret_snapshot)
{
    int64_t age_us = 0;
    struct snapshot *s = current_take(c, &age_us);
    if (age_us >= CHECK_EVERY_US && loading_enter(c, age_us)) {
        snapshot_drop(s);
        s = current_take(c, &age_us);
        if (age_us >= CHECK_EVERY_US) {
            refresh(c, s);
            snapshot_drop(s);
            s = current_take(c, &age_us);
        }
        loading_leave(c);
    }
    if (!s)
        return ERR_UNAVAILABLE;
    *ret_snapshot = s;
    return ERR_OK;
}

void catalog_expire(struct catalog *c)
{
    pthread_mutex_lock(&c->lock);
    c->checked_us = 0;
    c->expired_us = clock_mono_us();
    pthread_mutex_unlock(&c->lock);
}

void catalog_reload(struct catalog *c)
{
    stale_mark(c);
    catalog_expire(c);
}

void catalog_key_failed(struct catalog *c)
{
    int64_t now_us = clock_mono_us();
    pthread_mutex_lock(&c->lock);
    bool due = now_us - c->failed_us >= TOKEN_AGAIN_US;
    if (due)
        c->failed_us = now_us;
    pthread_mutex_unlock(&c->lock);
    if (due)
        catalog_reload(c);
}

void catalog_look(struct catalog *c, int64_t *ret_epoch, int64_t *ret_age_us)
{
    pthread_mutex_lock(&c->lock);
    *ret_epoch = c->current ? c->current->epoch : 0;
    *ret_age_us = clock_mono_us() - c->confirmed_us;
    pthread_mutex_unlock(&c->lock);
}

double catalog_clock_ahead_s(struct catalog *c)
{
    pthread_mutex_lock(&c->lock);
    int64_t wall_at_us = c->wall_at_us;
    pthread_mutex_unlock(&c->lock);
    return wall_at_us == 0 ? 0 : (double)(clock_wall_us() - wall_at_us - clock_mono_us()) / 1e6;
}

enum err catalog_clock_check(struct catalog *c, unsigned most_s, struct fault *fault)
{
    double ahead_s = catalog_clock_ahead_s(c);
    if (most_s == 0 || (ahead_s <= most_s && -ahead_s <= most_s))
        return ERR_OK;
    return fault_set(fault, FAULT_CLOCK_WRONG, "this server's clock is %.0f s %s the registry's",
                     ahead_s < 0 ? -ahead_s : ahead_s, ahead_s < 0 ? "behind" : "ahead of");
}

const struct catalog_template *snapshot_template(const struct snapshot *s, const char *name)
{
    for (size_t i = 0; i < s->template_count; i++) {
        if (strcmp(s->templates[i].name, name) == 0)
            return &s->templates[i];
    }
    return NULL;
}

const struct catalog_template *snapshot_template_by_id(const struct snapshot *s, int64_t id)
{
    for (size_t i = 0; i < s->template_count; i++) {
        if (s->templates[i].id == id)
            return &s->templates[i];
    }
    return NULL;
}

const struct catalog_product *snapshot_product(const struct snapshot *s, const char *name)
{
    for (size_t i = 0; i < s->product_count; i++) {
        if (strcmp(s->products[i].name, name) == 0)
            return &s->products[i];
    }
    return NULL;
}

const struct catalog_ca *snapshot_ca(const struct snapshot *s, int64_t id)
{
    for (size_t i = 0; i < s->ca_count; i++) {
        if (s->cas[i].id == id)
            return &s->cas[i];
    }
    return NULL;
}

const struct catalog_ca *snapshot_own_ca(const struct snapshot *s, struct bytes aki)
{
    for (size_t i = 0; i < s->ca_count; i++) {
        if (s->cas[i].ski.len > 0 && bytes_equal(s->cas[i].ski, aki))
            return &s->cas[i];
    }
    return NULL;
}

const struct issuer *snapshot_issuer(const struct snapshot *s, const char *name)
{
    const struct issuer *best = NULL;
    for (size_t i = 0; i < s->issuer_count; i++) {
        const struct issuer *issuer = s->issuers[i];
        if (name && strcmp(issuer_name(issuer), name) != 0)
            continue;
        if (!best || issuer_not_after_s(issuer) > issuer_not_after_s(best))
            best = issuer;
    }
    return best;
}

size_t snapshot_issuers(const struct snapshot *s, const char **ret_names, size_t max)
{
    size_t n = 0;
    for (; n < s->issuer_count && n < max; n++)
        ret_names[n] = issuer_name(s->issuers[n]);
    return n;
}

const struct trust *snapshot_trust(const struct snapshot *s)
{
    return s->trust;
}

size_t snapshot_own_cas(const struct snapshot *s, struct bytes *ret_ders, size_t max)
{
    size_t n = 0;
    static const enum catalog_ca_kind order[] = {CATALOG_ISSUING, CATALOG_ROOT, CATALOG_ROLLOVER};
    for (size_t k = 0; k < ARRAY_LEN(order); k++) {
        for (size_t i = 0; i < s->ca_count && n < max; i++) {
            if (s->cas[i].kind == order[k])
                ret_ders[n++] = s->cas[i].der;
        }
    }
    return n;
}

static const struct catalog_ca *own_ca_named(const struct snapshot *s, struct bytes name)
{
    for (size_t i = 0; i < s->ca_count; i++) {
        if (s->cas[i].subject_der.len > 0 && bytes_equal(s->cas[i].subject_der, name))
            return &s->cas[i];
    }
    return NULL;
}

size_t snapshot_chain(const struct snapshot *s, struct bytes issuer_name, struct bytes *ret_ders,
                      size_t max)
{
    size_t n = 0;
    const struct catalog_ca *ca = own_ca_named(s, issuer_name);
    while (ca && n < max) {
        ret_ders[n++] = ca->der;
        bool root = bytes_equal(ca->subject_der, ca->issuer_der);
        ca = root ? NULL : own_ca_named(s, ca->issuer_der);
    }
    return n;
}
