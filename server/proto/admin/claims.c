/*
 * Making claims: the certificate is issued or checked here, and a key made here is told once, past
 * every parser and writer whose memory nobody cleanses.
 */
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "enroll/catalog.h"
#include "enroll/service.h"
#include "enroll/template.h"
#include "pki/cert.h"
#include "pki/chain.h"
#include "pki/csr.h"
#include "pki/issuer.h"
#include "pki/key.h"
#include "proto/admin/hooks.h"

enum {
    MAX_NAME_CHARS = 64,
    MAX_KEY_PEM_BYTES = 4096,
    HOUR_S = 3600,
    DEFAULT_VALIDITY_S = 20 * 365 * 86400,
    DEFAULT_RATE_PER_SECOND = 10,
    DEFAULT_RATE_BURST = 50,
    DEFAULT_MAX_PENDING = 100,
    TEMPORARY_ENROL_FOR_S = 300,
    TEMPORARY_MAX_ENROL_FOR_S = HOUR_S
};

/* What a call makes. All memory is the exchange's. */
struct order {
    struct service *service;
    struct exchange *x;
    struct snapshot *snapshot; /* borrowed */
    json_t *args;
    const struct catalog_template *template;
    struct bytes leaf;
    struct bytes above[CERT_MAX_CHAIN];
    size_t above_count;
    const char *key_pem; /* secret; NULL: not made here */
};

static enum err no_memory(struct exchange *x)
{
    return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
}

static const char *text_arg(const struct order *o, const char *name)
{
    return json_string_value(json_object_get(o->args, name));
}

static int default_add(json_t *args, const char *name, int64_t number)
{
    return json_object_get(args, name) ? 0 : json_object_set_new(args, name, json_integer(number));
}

/* It goes into subject, URN and file names. */
static enum err name_check(struct order *o)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    const char *name = text_arg(o, "name");
    size_t len = strlen(name);
    if (len >= 1 && len <= MAX_NAME_CHARS && strspn(name, letters) == len)
        return ERR_OK;
    return fault_set(&o->x->fault, FAULT_REQUEST_MALFORMED,
                     "name has not 1 to %d characters of A-Z a-z 0-9 _ . -", MAX_NAME_CHARS);
}

/* A template the operator may see and that takes claims. */
static enum err template_find(struct order *o, const char *name,
                              const struct catalog_template **ret_template)
{
    const struct admin_session *s = o->x->adapter;
    const struct catalog_template *t = snapshot_template(o->snapshot, name);
    if (!t || (s->op.product_id != 0 && s->op.product_id != t->product->id))
        return fault_set(&o->x->fault, FAULT_OBJECT_NOT_FOUND, "there is no template %s in use",
                         name);
    if (!(template_settings(t->compiled)->credentials & CREDENTIAL_SET_CLAIM))
        return fault_set(&o->x->fault, FAULT_TEMPLATE_CREDENTIAL,
                         "Muster.Credentials of %s lacks \"claim\"", name);
    *ret_template = t;
    return ERR_OK;
}

static enum err scope_check(struct order *o)
{
    size_t i;
    const json_t *name;
    json_array_foreach(json_object_get(o->args, "templates"), i, name)
    {
        const struct catalog_template *t = NULL;
        enum err e = template_find(o, json_string_value(name), &t);
        if (e)
            return e;
        if (t->product != o->template->product)
            return fault_set(&o->x->fault, FAULT_REQUEST_MALFORMED,
                             "template %s is of product %s, not of %s", t->name, t->product->name,
                             o->template->product->name);
    }
    return ERR_OK;
}

/* Lent for minutes, for one device: whoever wants more wants a claim of the other kind. */
static enum err temporary_take(struct order *o)
{
    static const char *const strange[] = {"templates", "certificate", "validity_s", "grace_s",
                                          "batch"};
    for (size_t i = 0; i < ARRAY_LEN(strange); i++) {
        if (json_object_get(o->args, strange[i]))
            return fault_set(&o->x->fault, FAULT_REQUEST_MALFORMED, "a temporary claim takes no %s",
                             strange[i]);
    }
    int rc = default_add(o->args, "enrol_for_s", TEMPORARY_ENROL_FOR_S) |
             default_add(o->args, "budget", 1);
    int64_t enrol_for_s = json_integer_value(json_object_get(o->args, "enrol_for_s"));
    if (enrol_for_s > TEMPORARY_MAX_ENROL_FOR_S)
        return fault_set(&o->x->fault, FAULT_REQUEST_MALFORMED,
                         "a temporary claim enrols for at most %d s", TEMPORARY_MAX_ENROL_FOR_S);
    rc |= default_add(o->args, "validity_s", enrol_for_s + HOUR_S);
    return rc ? no_memory(o->x) : ERR_OK;
}

static enum err defaults_add(struct order *o)
{
    bool temporary = json_is_true(json_object_get(o->args, "temporary"));
    enum err e = temporary ? temporary_take(o) : ERR_OK;
    if (e)
        return e;
    int rc = default_add(o->args, "grace_s", 0) |
             default_add(o->args, "rate_per_second", DEFAULT_RATE_PER_SECOND) |
             default_add(o->args, "rate_burst", DEFAULT_RATE_BURST) |
             default_add(o->args, "max_pending", DEFAULT_MAX_PENDING) |
             json_object_set_new(o->args, "kind", json_string(temporary ? "temporary" : "shared"));
    (void)json_object_del(o->args, "temporary");
    return rc ? no_memory(o->x) : ERR_OK;
}

/* The key and, in place of a request for it, what issuer_sign wants of one. */
static enum err key_make(struct order *o, struct csr *csr)
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    _cleanup_(buf_donep) struct buf spki = {0};
    _cleanup_(buf_donep) struct buf pem = {0};
    buf_init(&spki, MAX_KEY_PEM_BYTES);
    buf_init(&pem, MAX_KEY_PEM_BYTES);
    csr->kind = KEY_P256;
    enum err e = key_generate(csr->kind, &key);
    if (!e)
        e = key_encode_canonical(key, &spki);
    if (!e)
        e = key_fingerprint(key, csr->spki_sha256);
    if (!e)
        e = key_encode_private(key, NULL, &pem);
    if (e)
        return fault_set(&o->x->fault, FAULT_INTERNAL, "making a key: %s", err_name(e));
    csr->spki = bytes_of(arena_copy(o->x->arena, spki.data, spki.len), spki.len);
    o->key_pem = arena_strdup(o->x->arena, buf_text(&pem));
    return csr->spki.data && o->key_pem ? ERR_OK : no_memory(o->x);
}

static enum err csr_take(struct order *o, const char *text, struct csr *csr)
{
    struct bytes der;
    enum err e = csr_unwrap(o->x->arena, bytes_text(text), &der);
    if (e)
        return fault_set(&o->x->fault, FAULT_CSR_MALFORMED, "csr is no PKCS#10 request in PEM");
    e = csr_decode(o->x->arena, der, csr, &o->x->fault);
    if (e == ERR_DENIED)
        return e;
    if (e)
        return no_memory(o->x);
    return csr->kind ? ERR_OK
                     : fault_set(&o->x->fault, FAULT_CSR_KEY,
                                 "a claim's key is P-256, P-384, RSA of 2048 to 4096 bits, or "
                                 "Ed25519");
}

/* Addresses and backdating are the template's; names, life and purpose are a claim's own. */
static enum err profile_make(struct order *o, struct cert_profile *p)
{
    const char *name = text_arg(o, "name"), *product = o->template->product->name;
    const json_t *validity = json_object_get(o->args, "validity_s");
    const char *urn = arena_printf(o->x->arena, "urn:muster:claim:%s:%s", product, name);
    if (!urn)
        return no_memory(o->x);
    *p = *template_renewal_profile(o->template->compiled);
    p->subject[0] = (struct rdn){"O", product};
    p->subject[1] = (struct rdn){"CN", name};
    p->subject_count = 2;
    p->san[0] = (struct san){SAN_URI, urn};
    p->san_count = 1;
    p->validity_s = validity ? json_integer_value(validity) : DEFAULT_VALIDITY_S;
    p->jitter_s = 0;
    p->eku = EKU_CLIENT_AUTH;
    return ERR_OK;
}

/* What the registry records of a certificate. */
static enum err certificate_add(struct order *o, const struct cert_info *info, int64_t issuer)
{
    int rc =
        admin_hex_add(o->x->arena, o->args, "der", o->leaf) |
        admin_hex_add(o->x->arena, o->args, "fingerprint",
                      bytes_of(info->fingerprint, SHA256_BYTES)) |
        admin_hex_add(o->x->arena, o->args, "spki", bytes_of(info->spki_sha256, SHA256_BYTES)) |
        admin_hex_add(o->x->arena, o->args, "serial_number", info->serial_number) |
        json_object_set_new(o->args, "issuer", json_integer(issuer)) |
        json_object_set_new(o->args, "not_before", json_integer(info->not_before_s)) |
        json_object_set_new(o->args, "not_after", json_integer(info->not_after_s));
    (void)json_object_del(o->args, "csr");
    (void)json_object_del(o->args, "certificate");
    (void)json_object_del(o->args, "validity_s");
    return rc ? no_memory(o->x) : ERR_OK;
}

static enum err issued_add(struct order *o, const struct issuer *issuer, const struct csr *csr,
                           const struct issued *issued)
{
    const struct catalog_ca *ca = snapshot_ca(o->snapshot, issuer_id(issuer));
    struct cert_info info = {
        .serial_number = bytes_of(issued->serial_number, ISSUER_SERIAL_BYTES),
        .not_before_s = issued->not_before_s,
        .not_after_s = issued->not_after_s,
    };
    memcpy(info.fingerprint, issued->fingerprint, SHA256_BYTES);
    memcpy(info.spki_sha256, csr->spki_sha256, SHA256_BYTES);
    o->leaf = issued->der;
    if (ca)
        o->above_count = snapshot_chain(o->snapshot, ca->subject_der, o->above, CERT_MAX_CHAIN);
    return certificate_add(o, &info, issuer_id(issuer));
}

static enum err issue(struct order *o)
{
    _cleanup_(csr_done) struct csr csr = {0};
    struct cert_profile profile;
    struct issued issued;
    struct bytes none = {0};
    int64_t now_s = clock_wall_s();
    const char *text = text_arg(o, "csr");
    const char *wanted = template_settings(o->template->compiled)->issuer;
    const struct issuer *issuer = snapshot_issuer(o->snapshot, wanted);
    if (!issuer || issuer_not_after_s(issuer) <= now_s)
        return fault_set(&o->x->fault, FAULT_CA_NO_ISSUER, "%s",
                         wanted ? wanted : "none is active, or its key cannot be used");
    enum err e = text ? csr_take(o, text, &csr) : key_make(o, &csr);
    if (!e)
        e = profile_make(o, &profile);
    if (!e &&
        crls_addresses(&o->service->revocation, issuer, csr.spki_sha256, o->x->arena, &profile))
        e = no_memory(o->x);
    if (e)
        return e;
    e = issuer_sign(issuer, &csr, &profile, none, none, now_s, o->x->arena, &issued);
    if (e)
        return fault_set(&o->x->fault, FAULT_INTERNAL, "signing with %s: %s", issuer_name(issuer),
                         err_name(e));
    return issued_add(o, issuer, &csr, &issued);
}

static enum err pem_take(struct order *o, const char *pem, struct bytes *chain, size_t *ret_count)
{
    X509 *certs[CERT_MAX_CHAIN] = {0};
    size_t count = 0;
    enum err e = cert_parse_pem(bytes_text(pem), certs, CERT_MAX_CHAIN, &count);
    for (size_t i = 0; i < count; i++) {
        if (!e)
            e = cert_encode(o->x->arena, certs[i], &chain[i]);
        cert_free(certs[i]);
    }
    *ret_count = count;
    return e ? fault_set(&o->x->fault, FAULT_REQUEST_MALFORMED,
                         "certificate is no PEM that can be read")
             : ERR_OK;
}

/* Ours: the registry knows what is above. Else what came with it, up to the registered CA. */
static void above_take(struct order *o, const struct catalog_ca *anchor,
                       const struct cert_info *leaf, const struct bytes *chain, size_t count)
{
    if (anchor->kind != CATALOG_REGISTERED) {
        o->above_count = snapshot_chain(o->snapshot, leaf->issuer_der, o->above, CERT_MAX_CHAIN);
        return;
    }
    for (size_t i = 1; i < count; i++) {
        if (!bytes_equal(chain[i], anchor->der))
            o->above[o->above_count++] = chain[i];
    }
    o->above[o->above_count++] = anchor->der;
}

/* A certificate that was made elsewhere, perhaps by us: its key is the factory's affair. */
static enum err certificate_take(struct order *o, const char *pem)
{
    struct bytes chain[CERT_MAX_CHAIN];
    struct chain_verdict v = {0};
    size_t count = 0;
    if (json_object_get(o->args, "csr") || json_object_get(o->args, "validity_s"))
        return fault_set(&o->x->fault, FAULT_REQUEST_MALFORMED,
                         "certificate excludes csr and validity_s");
    enum err e = pem_take(o, pem, chain, &count);
    if (!e)
        e = chain_verify(snapshot_trust(o->snapshot), o->x->arena, chain, count, clock_wall_s(), &v,
                         &o->x->fault);
    if (e)
        return e == ERR_DENIED ? e : no_memory(o->x);
    const struct catalog_ca *anchor = snapshot_ca(o->snapshot, v.anchor_id);
    if (!anchor)
        return fault_set(&o->x->fault, FAULT_INTERNAL, "the CA it leads to is gone");
    o->leaf = chain[0];
    above_take(o, anchor, &v.leaf, chain, count);
    return certificate_add(o, &v.leaf, anchor->id);
}

/* PEM has nothing that JSON escapes but its line ends. */
static const char *pem_json(struct arena *arena, const char *pem)
{
    char *out = arena_alloc(arena, 2 * strlen(pem) + 1), *at = out;
    for (; out && *pem; pem++) {
        if (*pem == '\n')
            *at++ = '\\';
        *at++ = *pem == '\n' ? 'n' : *pem;
    }
    return out;
}

static const char *chain_pem(struct order *o)
{
    const char *all = "";
    for (size_t i = 0; i < o->above_count && all; i++) {
        const char *pem = cert_pem(o->x->arena, o->above[i]);
        all = pem ? arena_printf(o->x->arena, "%s%s", all, pem) : NULL;
    }
    return all;
}

static enum err order_reply(struct order *o, const char *json)
{
    struct arena *a = o->x->arena;
    const char *leaf = cert_pem(a, o->leaf), *above = chain_pem(o);
    const char *leaf_json = leaf ? pem_json(a, leaf) : NULL;
    const char *above_json = above ? pem_json(a, above) : NULL;
    const char *key_json = pem_json(a, o->key_pem ? o->key_pem : "");
    if (!leaf_json || !above_json || !key_json)
        return no_memory(o->x);
    const char *text =
        arena_printf(a, "%.*s,\"certificate_pem\":\"%s\",\"chain_pem\":\"%s\"%s%s%s}",
                     (int)strlen(json) - 1, json, leaf_json, above_json,
                     o->key_pem ? ",\"private_key_pem\":\"" : "", key_json, o->key_pem ? "\"" : "");
    return text ? admin_reply(o->x, 201, text) : no_memory(o->x);
}

static enum err desk_ask(struct order *o, enum desk_call call, const json_t *args,
                         const char **ret_json)
{
    struct desk_answer answer = {0};
    enum err e = admin_ask(o->service, o->x, call, args, &answer);
    if (e)
        return e;
    *ret_json = answer.json;
    return ERR_OK;
}

static enum err order_run(struct order *o)
{
    const struct admin_call *call = o->x->route->more;
    const char *pem = text_arg(o, "certificate"), *json = NULL;
    unsigned most_s = atomic_load(&o->service->max_clock_skew_s);
    enum err e = name_check(o);
    if (!e)
        e = catalog_clock_check(o->service->catalog, most_s, &o->x->fault);
    if (!e)
        e = pem ? certificate_take(o, pem) : issue(o);
    if (!e)
        e = desk_ask(o, call->desk, o->args, &json);
    if (e)
        return e;
    catalog_expire(o->service->catalog);
    return order_reply(o, json);
}

static enum err snapshot_take(struct service *service, struct exchange *x, struct snapshot **ret)
{
    catalog_expire(service->catalog);
    if (catalog_get(service->catalog, ret))
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded");
    return ERR_OK;
}

enum err claim_create_handle(struct service *service, struct exchange *x)
{
    _cleanup_(json_decrefp) json_t *args = NULL;
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    enum err e = admin_args(x->route->more, x, &args);
    if (!e)
        e = snapshot_take(service, x, &snapshot);
    if (e)
        return e;
    struct order o = {.service = service, .x = x, .snapshot = snapshot, .args = args};
    e = template_find(&o, text_arg(&o, "template"), &o.template);
    if (!e)
        e = scope_check(&o);
    if (!e)
        e = defaults_add(&o);
    return e ? e : order_run(&o);
}

/* The template of the claim that is rotated, which the successor keeps. */
static enum err old_template(struct order *o)
{
    const char *json = NULL;
    _cleanup_(json_decrefp) json_t *ask =
        json_pack("{s:O}", "name", json_object_get(o->args, "old"));
    enum err e = ask ? desk_ask(o, DESK_CLAIM_SHOW, ask, &json) : no_memory(o->x);
    if (e)
        return e;
    _cleanup_(json_decrefp) json_t *old = json_loads(json, 0, NULL);
    const char *name = json_string_value(json_object_get(old, "template"));
    if (!name)
        return no_memory(o->x);
    e = template_find(o, name, &o->template);
    return e && o->x->fault.code == FAULT_OBJECT_NOT_FOUND
               ? fault_set(&o->x->fault, FAULT_REQUEST_CONFLICT, "its template %s is not in use",
                           name)
               : e;
}

enum err claim_rotate_handle(struct service *service, struct exchange *x)
{
    _cleanup_(json_decrefp) json_t *args = NULL;
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    enum err e = admin_args(x->route->more, x, &args);
    if (!e)
        e = snapshot_take(service, x, &snapshot);
    if (e)
        return e;
    struct order o = {.service = service, .x = x, .snapshot = snapshot, .args = args};
    e = old_template(&o);
    return e ? e : order_run(&o);
}
