#include "main/service.h"

#include "base/gate.h"
#include "base/limit.h"
#include "base/log.h"
#include "base/secret.h"
#include "enroll/catalog.h"
#include "enroll/claims.h"
#include "enroll/crl_shelf.h"
#include "enroll/events.h"
#include "enroll/hooks.h"
#include "enroll/journal.h"
#include "enroll/limits.h"
#include "enroll/metrics.h"
#include "enroll/ocsp.h"
#include "main/message.h"
#include "main/ra.h"
#include "ops/credential.h"
#include "pki/seal.h"
#include "store/commit.h"
#include "store/enrollment.h"

enum { SECRETS_ARENA_BYTES = 64 * 1024 };

static struct limits_config limits_settings(const struct config *c)
{
    return (struct limits_config){
        .global = {(unsigned)c->limits_enrolments_per_second, (unsigned)c->limits_burst},
        .source = {(unsigned)c->limits_per_source_per_second, (unsigned)c->limits_per_source_burst},
        .renewal_share = (unsigned)c->limits_renewal_share,
        .wait_ms = (unsigned)c->limits_queue_wait_ms,
        .max_waiting = (unsigned)c->limits_queue_max_waiting,
    };
}

static enum err limits_make(struct service *v, const struct config *c)
{
    enum err e = source_limit_new((double)c->trail_records_per_source_s,
                                  (unsigned)c->trail_records_per_source_burst, &v->trail_limit);
    if (!e)
        e = source_limit_new((double)c->enrol_refused_tokens_per_source_s,
                             (unsigned)c->enrol_refused_tokens_burst, &v->token_limit);
    if (!e)
        e = source_limit_new((double)c->admin_login_failures_per_minute / 60,
                             (unsigned)c->admin_login_failures_per_minute, &v->login_limit);
    const struct limits_config limits = limits_settings(c);
    if (!e)
        e = limits_new(&limits, limits_database, v->db, &v->limits);
    return e;
}

static enum err scrape_token_load(struct service *v, const struct config *c, char *message)
{
    _cleanup_(credential_done) struct buf token = {0};
    const char *where = "";
    enum err e = credential_load(CREDENTIAL_METRICS_TOKEN, c, &token, &where);
    if (!e && token.len > 0) {
        e = digest_sha256(buf_bytes(&token), v->scrape_token);
        v->scrape_token_set = e == ERR_OK;
    }
    return e ? message_at(message, e, "metrics token", where) : ERR_OK;
}

static enum err hooks_make(struct service *v, const struct config *c, char *message)
{
    _cleanup_(credential_done) struct buf secret = {0};
    const char *where = "";
    enum err e = credential_load(CREDENTIAL_HOOK_SECRET, c, &secret, &where);
    if (e)
        return message_at(message, e, "hook secret", where);
    const struct hooks_config hooks = {.secret = buf_bytes(&secret),
                                       .ca = config_optional(c->hook_ca),
                                       .workers = (unsigned)c->hook_workers,
                                       .max_waiting = (unsigned)c->hook_max_waiting};
    e = hooks_new(&hooks, &v->hooks);
    return e ? message_of(message, e, "hooks: [hook] ca, or threads") : ERR_OK;
}

enum err service_events(struct service *v, const struct config *c,
                        const struct events_config *template, struct events **ret_events,
                        char message[CONFIG_MESSAGE_BYTES])
{
    _cleanup_(credential_done) struct buf secret = {0};
    struct events_config events = *template;
    const char *where = "";
    enum err e = credential_load(CREDENTIAL_HOOK_SECRET, c, &secret, &where);
    if (e)
        return message_at(message, e, "hook secret", where);
    events.secret = buf_bytes(&secret);
    e = events_new(v->db, &events, ret_events);
    return e ? message_of(message, e, "events: [hook] ca, or threads") : ERR_OK;
}

void service_live(struct service *v, const struct config *c)
{
    atomic_store(&v->default_template, config_optional(c->enrol_default_template));
    atomic_store(&v->queue_timeout_ms, (unsigned)c->listen_queue_timeout_ms);
    atomic_store(&v->max_clock_skew_s, (unsigned)c->enrol_max_clock_skew_s);
    gate_limit(v->device_gate, (unsigned)c->listen_max_inside, (unsigned)c->listen_max_waiting);
    source_limit_change(v->trail_limit, (double)c->trail_records_per_source_s,
                        (unsigned)c->trail_records_per_source_burst);
    source_limit_change(v->token_limit, (double)c->enrol_refused_tokens_per_source_s,
                        (unsigned)c->enrol_refused_tokens_burst);
    source_limit_change(v->login_limit, (double)c->admin_login_failures_per_minute / 60,
                        (unsigned)c->admin_login_failures_per_minute);
    const struct limits_config limits = limits_settings(c);
    enum err e = limits_configure(v->limits, &limits);
    if (e)
        log_text(LOG_ERROR, "limits.not_changed", "error", err_name(e));
}

static enum err revocation_make(struct service *v, const struct config *c, char *message)
{
    int64_t shards = c->revocation_crl_shards;
    v->revocation = (struct revocation_settings){
        .serves = c->revocation_address[0] != '\0' || c->revocation_url[0] != '\0',
        .url = config_optional(c->revocation_url),
        .shards = (int)shards,
        .crl_life_s = c->revocation_crl_validity_s,
        .crl_every_s = c->revocation_crl_every_s,
        .ocsp_life_s = c->revocation_ocsp_validity_s,
    };
    if ((shards & (shards - 1)) != 0)
        return message_of(message, ERR_INVALID, "[revocation] crl_shards must be a power of two");
    if (shards > 1 && !v->revocation.url)
        return message_of(message, ERR_INVALID, "[revocation] url must be given with crl_shards");
    enum err e = crl_shelf_new(&v->crls);
    if (!e)
        e = ocsp_desk_new((unsigned)c->revocation_ocsp_nonces_per_source_s, &v->ocsp);
    return e ? message_of(message, e, "revocation") : ERR_OK;
}

enum err service_keys(const struct config *c, struct buf *passphrase, struct signer_source *ret,
                      char message[CONFIG_MESSAGE_BYTES])
{
    _cleanup_(credential_done) struct buf pin = {0};
    const char *where = "";
    enum err e = credential_load(CREDENTIAL_CA_PASSPHRASE, c, passphrase, &where);
    if (e)
        return message_at(message, e, "passphrase of the issuing keys", where);
    *ret =
        (struct signer_source){c->ca_directory, passphrase->len > 0 ? buf_text(passphrase) : NULL};
    if (c->ca_pkcs11_module[0] == '\0')
        return ERR_OK;
    e = credential_load(CREDENTIAL_PKCS11_PIN, c, &pin, &where);
    if (e)
        return message_at(message, e, "PIN of the PKCS#11 token", where);
    e = signer_pkcs11_begin(c->ca_pkcs11_module, pin.len > 0 ? buf_text(&pin) : NULL);
    return e ? message_at(message, e, "[ca] pkcs11_module (needs OpenSSL's engine pkcs11)",
                          c->ca_pkcs11_module)
             : ERR_OK;
}

static enum err journal_make(struct service *v, const struct config *c, char *message)
{
    const struct journal_config j = {.directory = c->journal_directory,
                                     .key_file = c->journal_key_file,
                                     .max_bytes = c->journal_max_bytes,
                                     .max_age_s = c->journal_max_age_s};
    if (c->journal_directory[0] == '\0')
        return ERR_OK;
    if (c->journal_key_file[0] == '\0')
        return message_of(message, ERR_INVALID,
                          "[journal] key_file must be given with a directory");
    return journal_new(&j, v->db, &v->journal, message);
}

/* The registry's sealing key, made where there is none yet, and opened with the key outside. */
static enum err sealer_make(struct service *v, const struct signer *outside, char *message)
{
    _cleanup_(buf_donep) struct buf made = {0};
    _cleanup_(arena_donep) struct arena arena = {0};
    struct bytes wrapped = {0};
    arena_init(&arena, SECRETS_ARENA_BYTES);
    buf_init(&made, SEAL_MAX_WRAPPED_BYTES);
    enum err e = seal_key_make(outside, &made);
    if (e)
        return message_of(message, e, "[secrets] key must be an RSA key of 2048 to 4096 bits");
    e = secret_key_keep(v->db, buf_bytes(&made), &arena, &wrapped);
    if (e)
        return message_of(message, e, "[secrets] key: reading the registry's sealing key");
    e = sealer_new(outside, wrapped, &v->sealer);
    return e ? message_of(
                   message, e,
                   "[secrets] key is not the one that the registry's secrets are sealed under")
             : ERR_OK;
}

static enum err secrets_make(struct service *v, const struct config *c, char *message)
{
    _cleanup_(signer_freep) struct signer *outside = NULL;
    v->dps_scope = config_optional(c->dps_id_scope);
    if (c->secrets_key[0] == '\0')
        return ERR_OK;
    enum err e = signer_open(&v->keys, c->secrets_key, &outside);
    return e ? message_at(message, e, "[secrets] key", c->secrets_key)
             : sealer_make(v, outside, message);
}

enum err service_init(struct service *v, struct db *db, const struct config *c,
                      char message[CONFIG_MESSAGE_BYTES])
{
    v->db = db;
    enum err e = service_keys(c, &v->passphrase, &v->keys, message);
    if (e)
        return e;
    e = catalog_new(db, &v->keys, &v->catalog);
    if (!e)
        e = claims_new(db, &v->claims);
    if (!e)
        e = metrics_new(&v->metrics);
    if (!e)
        e = committer_new(db, &v->coming, &v->committer);
    if (!e)
        e = limits_make(v, c);
    if (e)
        return message_of(message, e, "service");
    service_live(v, c);
    e = scrape_token_load(v, c, message);
    if (!e)
        e = revocation_make(v, c, message);
    if (!e)
        e = journal_make(v, c, message);
    if (!e)
        e = secrets_make(v, c, message);
    catalog_unseal(v->catalog, v->sealer);
    if (!e)
        e = ra_load(v, c, message);
    return e ? e : hooks_make(v, c, message);
}

void service_done(struct service *v)
{
    hooks_free(v->hooks);
    sealer_free(v->sealer);
    scep_ra_free(v->scep);
    journal_free(v->journal);
    ocsp_desk_free(v->ocsp);
    crl_shelf_free(v->crls);
    limits_free(v->limits);
    source_limit_free(v->token_limit);
    source_limit_free(v->login_limit);
    source_limit_free(v->trail_limit);
    committer_free(v->committer);
    metrics_free(v->metrics);
    catalog_free(v->catalog);
    credential_done(&v->passphrase);
    claims_free(v->claims);
}
