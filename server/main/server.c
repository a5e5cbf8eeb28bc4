#include "main/server.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/json_out.h"
#include "base/limit.h"
#include "base/log.h"
#include "base/secret.h"
#include "enroll/catalog.h"
#include "enroll/claims.h"
#include "enroll/limits.h"
#include "enroll/service.h"
#include "http/probe.h"
#include "http/random.h"
#include "http/socket.h"
#include "http/tls.h"
#include "ops/credential.h"
#include "ops/jobs.h"
#include "pki/chain.h"
#include "proto/health/health.h"
#include "store/commit.h"
#include "store/enrol.h"
#include "store/migrate.h"

enum {
    MAX_PORTS_BYTES = 256,
    DEVICE_ARENA_BYTES = 4 << 20,
    ADMIN_ARENA_BYTES = 256 << 20,
    ADMIN_CONNECTIONS = 128,
    ADMIN_INSIDE = 8,
    ADMIN_WAITING = 120,
    PROXY_MEMORY_BYTES = 64 * 1024, /* a request's headers carry a chain of certificates */
    MAX_CA_FILE_BYTES = 256 * 1024,
    STATUS_OK = 200,
    DRAIN_LOOK_MS = 20,
    DRAIN_SETTLE_MS = 500, /* for connections in their handshake */
};

/* A configuration loaded by a reload; kept until the end, as a request may still read its texts. */
struct loaded {
    struct config *config;
    struct loaded *older;
};

struct server {
    const struct config *started; /* borrowed: what the keys that are not live still say */
    const struct config *config;  /* the present one */
    struct loaded *loaded;
    struct db *db;
    struct service service;
    struct tls_identity *identity;
    struct gate device_gate;
    struct gate admin_gate;
    bool gates_made;
    struct trust *proxy_trust; /* NULL: none is configured */
    struct trust *admin_trust;
    struct listener *device;
    struct listener *admin;
    struct listener *proxy; /* NULL: none is configured */
    struct jobs *jobs;
};

static enum err failed_at(char *message, enum err e, const char *what, const char *where)
{
    snprintf(
        message, CONFIG_MESSAGE_BYTES, "%s%s%.300s: %s", what, where[0] != '\0' ? ", " : "", where,
        e == ERR_DENIED ? "the file must be readable by its owner only (mode 0600)" : err_name(e));
    return e;
}

static enum err failed(char *message, enum err e, const char *what)
{
    return failed_at(message, e, what, "");
}

enum err server_database(const struct config *c, struct db **ret_db,
                         char message[CONFIG_MESSAGE_BYTES])
{
    _cleanup_(credential_done) struct buf password = {0};
    const char *where = "";
    enum err e = credential_load(CREDENTIAL_DATABASE_PASSWORD, c, &password, &where);
    if (e)
        return failed_at(message, e, "database password", where);
    struct db_config config = {
        .host = config_optional(c->database_host),
        .port = config_optional(c->database_port),
        .name = c->database_name,
        .user = config_optional(c->database_user),
        .password = config_optional(buf_text(&password)),
        .sslmode = config_optional(c->database_sslmode),
        .pool_size = (unsigned)c->database_pool_size,
        .connect_timeout_s = (unsigned)c->database_connect_timeout_s,
        .statement_timeout_ms = (unsigned)c->database_statement_timeout_ms,
        .acquire_timeout_ms = (unsigned)c->database_acquire_timeout_ms,
    };
    e = db_new(&config, ret_db);
    return e ? failed(message, e, "database") : ERR_OK;
}

enum err server_schema_check(struct db *db, char message[CONFIG_MESSAGE_BYTES])
{
    int version = 0;
    char why[DB_MAX_MESSAGE_BYTES];
    enum err e = migrate_check(db, &version, why);
    if (e)
        snprintf(message, CONFIG_MESSAGE_BYTES, "%.500s", why);
    return e;
}

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

static enum err scrape_token_load(struct server *s, char *message)
{
    _cleanup_(credential_done) struct buf token = {0};
    const char *where = "";
    enum err e = credential_load(CREDENTIAL_METRICS_TOKEN, s->config, &token, &where);
    if (!e && token.len > 0) {
        e = digest_sha256(buf_bytes(&token), s->service.scrape_token);
        s->service.scrape_token_set = e == ERR_OK;
    }
    return e ? failed_at(message, e, "metrics token", where) : ERR_OK;
}

static struct maintain_settings retention_of(const struct config *c)
{
    return (struct maintain_settings){
        .history_days = (int)c->retention_history_days,
        .outbox_days = (int)c->retention_outbox_days,
        .audit_days = (int)c->retention_audit_days,
    };
}

/* Everything of CONFIG_LIVE that threads of requests read: each by an atomic or under its lock. */
static void live_apply(struct server *s, const struct config *c)
{
    struct service *v = &s->service;
    atomic_store(&v->default_template, config_optional(c->enrol_default_template));
    atomic_store(&v->queue_timeout_ms, (unsigned)c->listen_queue_timeout_ms);
    atomic_store(&v->max_clock_skew_s, (unsigned)c->enrol_max_clock_skew_s);
    gate_limit(&s->device_gate, (unsigned)c->listen_max_inside, (unsigned)c->listen_max_waiting);
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

static enum err service_make(struct server *s, char *message)
{
    const struct config *c = s->config;
    s->service.db = s->db;
    s->service.ca_dir = c->ca_directory;
    s->service.device_gate = &s->device_gate;
    s->service.admin_gate = &s->admin_gate;
    enum err e = catalog_new(s->db, c->ca_directory, &s->service.catalog);
    if (!e)
        e = claims_new(s->db, &s->service.claims);
    if (!e)
        e = metrics_new(&s->service.metrics);
    if (!e)
        e = committer_new(s->db, &s->service.coming, &s->service.committer);
    if (!e)
        e = limits_make(&s->service, c);
    if (e)
        return failed(message, e, "service");
    live_apply(s, c);
    return scrape_token_load(s, message);
}

static enum err identity_make(struct server *s, char *message)
{
    enum err e = tls_identity_new(s->config->tls_certificate, s->config->tls_key, &s->identity);
    if (e)
        return failed(message, e, "[tls] certificate and key");
    tls_identity_install(s->identity);
    s->service.server_cert_ends_s = tls_identity_ends_s(s->identity);
    if (!random_is_ours())
        return failed(message, ERR_SYSTEM, "GnuTLS does not take its random numbers from musterd");
    return ERR_OK;
}

static enum err gates_make(struct server *s, char *message)
{
    enum err e = gate_init(&s->device_gate, (unsigned)s->config->listen_max_inside,
                           (unsigned)s->config->listen_max_waiting);
    if (!e)
        e = gate_init(&s->admin_gate, ADMIN_INSIDE, ADMIN_WAITING);
    s->gates_made = e == ERR_OK;
    return e ? failed(message, e, "gate") : ERR_OK;
}

/* NULL for an empty path. */
static enum err trust_load(const char *path, struct trust **ret_trust)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    if (path[0] == '\0')
        return ERR_OK;
    buf_init(&pem, MAX_CA_FILE_BYTES);
    enum err e = file_load(path, &pem);
    return e ? e : trust_parse_pem(buf_bytes(&pem), ret_trust);
}

/* What all listeners have in common. */
static struct listener_config listener_base(const struct config *c,
                                            const struct route_table *const *tables, size_t count)
{
    struct listener_config lc = {
        .max_connections = (unsigned)c->listen_max_connections,
        .idle_timeout_s = (unsigned)c->listen_idle_timeout_s,
        .request_timeout_s = (unsigned)c->listen_request_timeout_s,
        .request_arena_bytes = DEVICE_ARENA_BYTES,
        .memory_bytes = LISTENER_MEMORY_BYTES,
        .peers = {.open = &health_routes},
        .table_count = count,
    };
    memcpy(lc.tables, tables, count * sizeof(*tables));
    return lc;
}

static enum err device_listen(struct server *s, const struct route_table *const *tables,
                              size_t count, char *message)
{
    const struct config *c = s->config;
    struct listener_config lc = listener_base(c, tables, count);
    lc.name = "device";
    lc.metrics = METRICS_DEVICE;
    lc.address = c->listen_device_address;
    lc.port = (uint16_t)c->listen_device_port;
    lc.max_connections_per_address = (unsigned)c->listen_max_connections_per_address;
    lc.balancers = c->listen_proxy_protocol_from;
    enum err e = listener_new(&lc, &s->service, &s->device_gate, &s->device);
    return e ? failed(message, e, "device listener: address, port or proxy_protocol_from") : ERR_OK;
}

static enum err admin_listen(struct server *s, const struct route_table *const *tables,
                             size_t count, char *message)
{
    const struct config *c = s->config;
    enum err e = trust_load(c->admin_client_ca, &s->admin_trust);
    if (e)
        return failed(message, e, "[admin] client_ca");
    struct listener_config lc = listener_base(c, tables, count);
    lc.name = "admin";
    lc.metrics = METRICS_ADMIN;
    lc.address = c->listen_admin_address;
    lc.port = (uint16_t)c->listen_admin_port;
    lc.max_connections = ADMIN_CONNECTIONS;
    lc.request_arena_bytes = ADMIN_ARENA_BYTES;
    lc.peers.trust = s->admin_trust;
    lc.peers.fault = FAULT_ADMIN_CERTIFICATE;
    e = listener_new(&lc, &s->service, &s->admin_gate, &s->admin);
    return e ? failed(message, e, "admin listener: address or port") : ERR_OK;
}

/* Serves what the device listener serves, to proxies that prove themselves: over TCP by a
 * certificate, on a local socket by its mode. */
static enum err proxy_listen(struct server *s, const struct route_table *const *tables,
                             size_t count, char *message)
{
    const struct config *c = s->config;
    if (c->proxy_address[0] == '\0')
        return ERR_OK;
    bool local = socket_local_path(c->proxy_address);
    if (!local && (c->proxy_client_ca[0] == '\0' || c->proxy_names[0] == '\0'))
        return failed(message, ERR_INVALID,
                      "[proxy] client_ca and names must be given with an address");
    enum err e = trust_load(local ? "" : c->proxy_client_ca, &s->proxy_trust);
    if (e)
        return failed(message, e, "[proxy] client_ca");
    struct listener_config lc = listener_base(c, tables, count);
    lc.name = "proxy";
    lc.metrics = METRICS_PROXY;
    lc.address = c->proxy_address;
    lc.port = (uint16_t)c->proxy_port;
    lc.memory_bytes = PROXY_MEMORY_BYTES;
    lc.peers.trust = s->proxy_trust;
    lc.peers.names = config_optional(c->proxy_names);
    lc.peers.fault = FAULT_PROXY_UNAUTHENTICATED;
    lc.peers.are_proxies = true;
    e = listener_new(&lc, &s->service, &s->device_gate, &s->proxy);
    return e ? failed(message, e, "proxy listener: address or port") : ERR_OK;
}

static enum err ports_publish(const struct server *s, char *message)
{
    _cleanup_(buf_donep) struct buf b = {0};
    struct buf line;
    log_begin(&line, LOG_INFO, "server.listening");
    json_int(&line, "device_port", listener_port(s->device));
    json_int(&line, "admin_port", listener_port(s->admin));
    if (s->proxy)
        json_int(&line, "proxy_port", listener_port(s->proxy));
    log_end(&line, LOG_INFO);
    if (s->config->listen_ports_file[0] == '\0')
        return ERR_OK;
    buf_init(&b, MAX_PORTS_BYTES);
    buf_printf(&b, "device=%u\nadmin=%u\n", listener_port(s->device), listener_port(s->admin));
    if (s->proxy && listener_port(s->proxy) > 0)
        buf_printf(&b, "proxy=%u\n", listener_port(s->proxy));
    enum err e = file_store(s->config->listen_ports_file, buf_bytes(&b), 0644);
    return e ? failed(message, e, "[listen] ports_file") : ERR_OK;
}

static enum err jobs_make(struct server *s, char *message)
{
    const struct maintain_settings settings = retention_of(s->config);
    enum err e = jobs_new(s->db, &settings, &s->jobs);
    return e ? failed(message, e, "background jobs") : ERR_OK;
}

enum err server_new(const struct config *config, const struct route_table *const *device_tables,
                    size_t device_count, const struct route_table *const *admin_tables,
                    size_t admin_count, struct server **ret_server,
                    char message[CONFIG_MESSAGE_BYTES])
{
    struct server *s = calloc(1, sizeof(*s));
    if (!s)
        return failed(message, ERR_NO_MEMORY, "server");
    s->started = s->config = config;
    enum err e = gates_make(s, message);
    if (!e)
        e = server_database(config, &s->db, message);
    if (!e)
        e = server_schema_check(s->db, message);
    if (!e)
        e = service_make(s, message);
    if (!e)
        e = identity_make(s, message);
    if (!e)
        e = device_listen(s, device_tables, device_count, message);
    if (!e)
        e = proxy_listen(s, device_tables, device_count, message);
    if (!e)
        e = admin_listen(s, admin_tables, admin_count, message);
    if (!e)
        e = jobs_make(s, message);
    if (!e)
        e = ports_publish(s, message);
    if (e)
        server_free(s);
    else
        *ret_server = s;
    return e;
}

static void differences_log(const struct config *old, const struct config *new, bool live,
                            const char *event)
{
    size_t index = 0;
    struct config_difference d;
    while (config_differ(old, new, &index, &d)) {
        if (d.live == live)
            log_text(live ? LOG_INFO : LOG_WARN, event, "key", d.key);
    }
}

/* The file, judged as far as its live keys go. */
static enum err next_load(const char *path, struct loaded **ret_loaded, enum log_level *ret_level,
                          char *message)
{
    _cleanup_(config_freep) struct config *c = NULL;
    enum err e = config_load(path, &c, message);
    if (e)
        return e;
    if (log_level_parse(c->log_level, ret_level))
        return failed(message, ERR_INVALID, "[log] level must be debug, info, warn or error");
    struct loaded *l = calloc(1, sizeof(*l));
    if (!l)
        return failed(message, ERR_NO_MEMORY, "reload");
    l->config = TAKE_PTR(c);
    *ret_loaded = l;
    return ERR_OK;
}

static enum err identity_reload(struct server *s, char *message)
{
    enum err e = tls_identity_reload(s->identity);
    log_text(e ? LOG_ERROR : LOG_INFO, "tls.reload", "result", e ? err_name(e) : "ok");
    s->service.server_cert_ends_s = tls_identity_ends_s(s->identity);
    return e ? failed(message, e, "[tls] certificate and key") : ERR_OK;
}

static void loaded_free(struct loaded *l)
{
    if (l)
        config_free(l->config);
    free(l);
}

static void loaded_install(struct server *s, struct loaded *l, enum log_level level)
{
    const struct maintain_settings retention = retention_of(l->config);
    differences_log(s->config, l->config, true, "config.changed");
    differences_log(s->started, l->config, false, "config.needs_restart");
    log_set_level(level);
    live_apply(s, l->config);
    jobs_change(s->jobs, &retention);
    catalog_reload(s->service.catalog);
    l->older = s->loaded;
    s->loaded = l;
    s->config = l->config;
}

enum err server_reload(struct server *s)
{
    char message[CONFIG_MESSAGE_BYTES] = "";
    struct loaded *next = NULL;
    enum log_level level = LOG_INFO;
    enum err e = next_load(s->started->path, &next, &level, message);
    if (!e)
        e = identity_reload(s, message);
    metrics_reload(s->service.metrics, !e);
    if (e) {
        log_text(LOG_ERROR, "config.reload_refused", "reason", message);
        loaded_free(next);
        return e;
    }
    loaded_install(s, next, level);
    log_text(LOG_INFO, "config.reloaded", "file", s->started->path);
    return ERR_OK;
}

enum err server_answers(const struct server *s, unsigned timeout_ms)
{
    const struct probe probe = {
        .address = s->started->listen_admin_address,
        .port = listener_port(s->admin),
        .path = "/healthz",
        .timeout_ms = timeout_ms,
    };
    int status = 0;
    enum err e = probe_get(&probe, &status);
    return !e && status != STATUS_OK ? ERR_UNAVAILABLE : e;
}

static void look_again(void)
{
    const struct timespec look = {.tv_nsec = DRAIN_LOOK_MS * 1000000L};
    nanosleep(&look, NULL);
}

/* Those that are there. */
static size_t listeners_of(const struct server *s, struct listener *ret[3])
{
    ret[0] = s->device;
    ret[1] = s->admin;
    ret[2] = s->proxy;
    return s->proxy ? 3 : 2;
}

static unsigned requests_under_way(const struct server *s)
{
    struct listener *all[3];
    unsigned sum = 0;
    for (size_t i = listeners_of(s, all); i > 0; i--)
        sum += listener_active(all[i - 1]);
    return sum;
}

static unsigned connections_open(const struct server *s)
{
    struct listener *all[3];
    unsigned sum = 0;
    for (size_t i = listeners_of(s, all); i > 0; i--)
        sum += listener_connections(all[i - 1]);
    return sum;
}

/* First everybody who is connected may still ask; who then asks is refused. A request raises
 * `active` before it looks whether it is refused, so none slips between the two. */
void server_drain(struct server *s)
{
    int64_t looks = s->config->listen_drain_timeout_s * 1000 / DRAIN_LOOK_MS;
    int64_t settle = DRAIN_SETTLE_MS / DRAIN_LOOK_MS;
    struct listener *all[3];
    size_t count = listeners_of(s, all);
    atomic_store(&s->service.draining, true);
    for (size_t i = 0; i < count; i++)
        listener_quiesce(all[i]);
    for (; settle > 0 && connections_open(s) > 0; settle--)
        look_again();
    while (looks-- > 0 && requests_under_way(s) > 0)
        look_again();
    for (size_t i = 0; i < count; i++)
        listener_refuse(all[i]);
    while (looks-- > 0 && requests_under_way(s) > 0)
        look_again();
}

void server_free(struct server *s)
{
    if (!s)
        return;
    jobs_free(s->jobs);
    listener_free(s->proxy);
    listener_free(s->admin);
    listener_free(s->device);
    if (s->gates_made) {
        gate_done(&s->admin_gate);
        gate_done(&s->device_gate);
    }
    trust_free(s->proxy_trust);
    trust_free(s->admin_trust);
    tls_identity_free(s->identity);
    limits_free(s->service.limits);
    source_limit_free(s->service.token_limit);
    source_limit_free(s->service.login_limit);
    source_limit_free(s->service.trail_limit);
    committer_free(s->service.committer);
    metrics_free(s->service.metrics);
    catalog_free(s->service.catalog);
    claims_free(s->service.claims);
    db_free(s->db);
    while (s->loaded) {
        struct loaded *older = s->loaded->older;
        loaded_free(s->loaded);
        s->loaded = older;
    }
    free(s);
}
