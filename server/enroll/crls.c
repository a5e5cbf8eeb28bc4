#include "enroll/crls.h"

#include <inttypes.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json_out.h"
#include "base/log.h"
#include "enroll/catalog.h"
#include "enroll/service.h"
#include "pki/crl.h"
#include "store/revocation.h"

enum {
    MAX_ISSUERS = 64,
    ARENA_BYTES = 1 << 30, /* 400 bytes an entry */
    OVERLAP_S = 3600,      /* a transaction that revoked and committed late is in the delta */
    DELTA_LIVES_FOR_UPDATES = 2
};

struct signing {
    struct service *service;
    struct snapshot *snapshot;
};

static const char *crl_url(const struct revocation_settings *s, const char *slug,
                           const struct crl_name *n, struct arena *arena)
{
    const char *kind = n->delta ? ".delta.crl" : ".crl";
    return n->shards == 1
               ? arena_printf(arena, "%s/crl/%s%s", s->url, slug, kind)
               : arena_printf(arena, "%s/crl/%s/%d-%d%s", s->url, slug, n->shards, n->shard, kind);
}

enum err crls_addresses(const struct revocation_settings *s, const struct issuer *issuer,
                        const uint8_t *spki_sha256, struct arena *arena,
                        struct cert_profile *profile)
{
    const char *slug = issuer_slug(issuer);
    if (!s->url)
        return ERR_OK;
    if (profile->crl_url_count == 0) {
        const struct crl_name name = {.shards = s->shards,
                                      .shard = spki_sha256[0] / (CRL_MAX_SHARDS / s->shards)};
        profile->crl_urls[profile->crl_url_count++] = crl_url(s, slug, &name, arena);
    }
    if (!profile->ocsp_url)
        profile->ocsp_url = arena_printf(arena, "%s/ocsp", s->url);
    if (!profile->ca_issuers_url)
        profile->ca_issuers_url = arena_printf(arena, "%s/ca/%s.crt", s->url, slug);
    return profile->crl_urls[0] && profile->ocsp_url && profile->ca_issuers_url ? ERR_OK
                                                                                : ERR_NO_MEMORY;
}

static const struct issuer *issuer_of(const struct snapshot *snapshot, int64_t id)
{
    const struct catalog_ca *ca = snapshot_ca(snapshot, id);
    return ca ? snapshot_issuer(snapshot, ca->name) : NULL;
}

static void log_signed(const struct issuer *issuer, const struct crl_signed *c)
{
    struct buf b;
    log_begin(&b, LOG_INFO, "crl.signed");
    json_text(&b, "issuer", issuer_name(issuer));
    json_int(&b, "shards", c->name.shards);
    json_int(&b, "shard", c->name.shard);
    json_text(&b, "kind", c->name.delta ? "delta" : "full");
    json_int(&b, "number", c->number);
    json_int(&b, "entries", (int64_t)c->entries);
    json_int(&b, "bytes", (int64_t)c->der.len);
    log_end(&b, LOG_INFO);
}

/* since_s 0: the whole. */
static enum err one_sign(struct db_conn *conn, const struct revocation_settings *s,
                         const struct issuer *issuer, struct crl_signed *c, uint32_t base_number,
                         int64_t since_s)
{
    _cleanup_(arena_donep) struct arena arena;
    struct revoked *rows = NULL;
    const struct crl_name delta = {c->name.issuer_id, c->name.shards, c->name.shard, true};
    const struct crl_name full = {c->name.issuer_id, c->name.shards, c->name.shard, false};
    arena_init(&arena, ARENA_BYTES);
    enum err e =
        revocation_entries(conn, &c->name, s->crl_life_s, since_s, &arena, &rows, &c->entries);
    if (e)
        return e;
    const char *slug = issuer_slug(issuer);
    const struct crl_order order = {
        .number = (uint32_t)c->number,
        .base_number = base_number,
        .this_update_s = c->this_update_s,
        .next_update_s = c->next_update_s,
        .scope_url = s->url && c->name.shards > 1 ? crl_url(s, slug, &full, &arena) : NULL,
        .freshest_url = s->url ? crl_url(s, slug, &delta, &arena) : NULL,
        .rows = rows,
        .count = c->entries,
    };
    e = crl_sign(issuer, &order, &arena, &c->der);
    if (!e)
        e = revocation_crl_store(conn, &arena, c);
    if (!e)
        log_signed(issuer, c);
    return e;
}

/* With a full CRL goes an empty delta one, of the same number (RFC 5280 5.2.3). */
static enum err wish_sign(struct db_conn *conn, const struct crl_wish *w, void *ctx)
{
    const struct signing *signing = ctx;
    const struct revocation_settings *s = &signing->service->revocation;
    const struct issuer *issuer = issuer_of(signing->snapshot, w->name.issuer_id);
    int64_t now_s = clock_wall_s(), delta_life_s = s->crl_every_s * DELTA_LIVES_FOR_UPDATES;
    struct crl_signed c = {.name = w->name,
                           .number = w->number,
                           .this_update_s = now_s,
                           .next_update_s = now_s + s->crl_life_s,
                           .stamp = w->stamp};
    uint32_t base_number = (uint32_t)(w->name.delta ? w->base_number : w->number);
    int64_t since_s = (w->name.delta ? w->base_at_s : now_s) - OVERLAP_S;
    if (!issuer || w->number > UINT32_MAX)
        return issuer ? ERR_INVALID : ERR_OK;
    enum err e = w->name.delta ? ERR_OK : one_sign(conn, s, issuer, &c, 0, 0);
    if (e)
        return e;
    c.name.delta = true;
    c.next_update_s = now_s + (delta_life_s < s->crl_life_s ? delta_life_s : s->crl_life_s);
    return one_sign(conn, s, issuer, &c, base_number, since_s);
}

static size_t issuers_of(const struct snapshot *snapshot, int64_t now_s, int64_t *ret_ids)
{
    const char *names[MAX_ISSUERS];
    size_t count = snapshot_issuers(snapshot, names, MAX_ISSUERS), n = 0;
    for (size_t i = 0; i < count; i++) {
        const struct issuer *issuer = snapshot_issuer(snapshot, names[i]);
        if (issuer && issuer_not_after_s(issuer) > now_s)
            ret_ids[n++] = issuer_id(issuer);
    }
    return n;
}

void crls_run(struct service *service)
{
    int64_t ids[MAX_ISSUERS];
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    if (!service->revocation.serves || catalog_get(service->catalog, &snapshot))
        return;
    struct signing signing = {service, snapshot};
    const struct crl_plan plan = {
        .issuers = ids,
        .issuer_count = issuers_of(snapshot, clock_wall_s(), ids),
        .shards = service->revocation.shards,
        .url = service->revocation.url,
        .every_s = service->revocation.crl_every_s,
        .sign = wish_sign,
        .ctx = &signing,
    };
    enum err e = revocation_crls_run(service->db, &plan);
    if (e)
        log_text(LOG_ERROR, "crl.not_signed", "error", err_name(e));
}
