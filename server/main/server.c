#include "main/server.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/json_out.h"
#include "base/log.h"
#include "enroll/catalog.h"
#include "enroll/events.h"
#include "enroll/journal.h"
#include "enroll/service.h"
#include "http/probe.h"
#include "http/random.h"
#include "http/socket.h"
#include "http/tls.h"
#include "main/message.h"
#include "main/service.h"
#include "mqtt/mqtt.h"
#include "ops/credential.h"
#include "ops/jobs.h"
#include "ops/ticker.h"
#include "pki/chain.h"
#include "proto/health/health.h"
#include "proto/revocation/revocation.h"
#include "proto/scep/scep.h"
#include "store/migrate.h"

enum {
    MAX_PORTS_BYTES = 256,
    DEVICE_ARENA_BYTES = 4 << 20,
    ADMIN_ARENA_BYTES = 256 << 20,
    ADMIN_CONNECTIONS = 128,
    ADMIN_INSIDE = 8,
    ADMIN_WAITING = 120,
    REVOCATION_INSIDE = 4,
    REVOCATION_WAITING = 500,
    REVOCATION_ARENA_BYTES = 512 << 20, /* a CRL, and the registry's text of it */
    PROXY_MEMORY_BYTES = 64 * 1024,     /* a request's headers carry a chain of certificates */
    MAX_CA_FILE_BYTES = 256 * 1024,
    STATUS_OK = 200,
    MAX_LISTENERS = 5,
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
    struct gate revocation_gate; /* its own: a crowd of relying parties keeps no device waiting */
    bool gates_made;
    struct trust *proxy_trust; /* NULL: none is configured */
    struct trust *admin_trust;
    struct listener *device;
    struct listener *admin;
    struct listener *proxy;      /* NULL: none is configured */
    struct listener *revocation; /* likewise */
    struct listener *scep;       /* likewise */
    struct mqtt *mqtt;           /* NULL: no broker is configured */
    struct jobs *jobs;
    struct ticker *journal_ticker; /* NULL: no journal is kept */
    struct ticker *catalog_ticker;
    struct events *events;
};

enum err server_database(const struct config *c, struct db **ret_db,
                         char message[CONFIG_MESSAGE_BYTES])
{
    _cleanup_(credential_done) struct buf password = {0};
    const char *where = "";
    enum err e = credential_load(CREDENTIAL_DATABASE_PASSWORD, c, &password, &where);
    if (e)
        return message_at(message, e, "database password", where);
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
    return e ? message_of(message, e, "database") : ERR_OK;
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

static struct maintain_settings retention_of(const struct config *c)
{
    return (struct maintain_settings){
        .history_days = (int)c->retention_history_days,
        .outbox_days = (int)c->retention_outbox_days,
        .audit_days = (int)c->retention_audit_days,
    };
}

static enum err identity_make(struct server *s, char *message)
{
    enum err e = tls_identity_new(s->config->tls_certificate, s->config->tls_key, &s->identity);
    if (e)
        return message_of(message, e, "[tls] certificate and key");
    tls_identity_install(s->identity);
    s->service.server_cert_ends_s = tls_identity_ends_s(s->identity);
    if (!random_is_ours())
        return message_of(message, ERR_SYSTEM,
                          "GnuTLS does not take its random numbers from musterd");
    return ERR_OK;
}

static enum err gates_make(struct server *s, char *message)
{
    enum err e = gate_init(&s->device_gate, (unsigned)s->config->listen_max_inside,
                           (unsigned)s->config->listen_max_waiting);
    if (!e)
        e = gate_init(&s->admin_gate, ADMIN_INSIDE, ADMIN_WAITING);
    if (!e)
        e = gate_init(&s->revocation_gate, REVOCATION_INSIDE, REVOCATION_WAITING);
    s->gates_made = e == ERR_OK;
    return e ? message_of(message, e, "gate") : ERR_OK;
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
    lc.psk = true;
    enum err e = listener_new(&lc, &s->service, &s->device_gate, &s->device);
    return e ? message_of(message, e, "device listener: address, port or proxy_protocol_from")
             : ERR_OK;
}

static enum err admin_listen(struct server *s, const struct route_table *const *tables,
                             size_t count, char *message)
{
    const struct config *c = s->config;
    enum err e = trust_load(c->admin_client_ca, &s->admin_trust);
    if (e)
        return message_of(message, e, "[admin] client_ca");
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
    return e ? message_of(message, e, "admin listener: address or port") : ERR_OK;
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
        return message_of(message, ERR_INVALID,
                          "[proxy] client_ca and names must be given with an address");
    enum err e = trust_load(local ? "" : c->proxy_client_ca, &s->proxy_trust);
    if (e)
        return message_of(message, e, "[proxy] client_ca");
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
    return e ? message_of(message, e, "proxy listener: address or port") : ERR_OK;
}

/* Relying parties, who may be anybody. */
static enum err revocation_listen(struct server *s, char *message)
{
    static const struct route_table *const tables[] = {&revocation_routes, &health_routes};
    const struct config *c = s->config;
    if (c->revocation_address[0] == '\0')
        return ERR_OK;
    struct listener_config lc = listener_base(c, tables, ARRAY_LEN(tables));
    lc.name = "revocation";
    lc.metrics = METRICS_REVOCATION;
    lc.address = c->revocation_address;
    lc.port = (uint16_t)c->revocation_port;
    lc.clear = true;
    lc.request_arena_bytes = REVOCATION_ARENA_BYTES;
    lc.max_connections_per_address = (unsigned)c->listen_max_connections_per_address;
    enum err e = listener_new(&lc, &s->service, &s->revocation_gate, &s->revocation);
    return e ? message_of(message, e, "revocation listener: address or port") : ERR_OK;
}

/* SCEP protects its messages itself. */
static enum err scep_listen(struct server *s, char *message)
{
    static const struct route_table *const tables[] = {&scep_routes, &health_routes};
    const struct config *c = s->config;
    if (c->scep_address[0] == '\0')
        return ERR_OK;
    struct listener_config lc = listener_base(c, tables, ARRAY_LEN(tables));
    lc.name = "scep";
    lc.metrics = METRICS_SCEP;
    lc.address = c->scep_address;
    lc.port = (uint16_t)c->scep_port;
    lc.clear = true;
    lc.max_connections_per_address = (unsigned)c->listen_max_connections_per_address;
    enum err e = listener_new(&lc, &s->service, &s->device_gate, &s->scep);
    return e ? message_of(message, e, "scep listener: address or port") : ERR_OK;
}

static enum err mqtt_files_check(const struct config *c, char *message)
{
    _cleanup_(credential_done) struct buf key = {0};
    if (c->mqtt_ca[0] == '\0' || c->mqtt_certificate[0] == '\0' || c->mqtt_key[0] == '\0')
        return message_of(message, ERR_INVALID,
                          "[mqtt] ca, certificate and key must be given with a host");
    buf_init(&key, MAX_CA_FILE_BYTES);
    enum err e = file_load_private(c->mqtt_key, &key);
    return e ? message_of(message, e, "[mqtt] key") : ERR_OK;
}

/* The broker may be away, now and later. */
static enum err mqtt_make(struct server *s, char *message)
{
    const struct config *c = s->config;
    const struct mqtt_config mc = {
        .client = {.host = c->mqtt_host,
                   .port = (uint16_t)c->mqtt_port,
                   .ca = c->mqtt_ca,
                   .certificate = c->mqtt_certificate,
                   .key = c->mqtt_key,
                   .keep_alive_s = (unsigned)c->mqtt_keep_alive_s},
        .requests = {.workers = (unsigned)c->mqtt_workers,
                     .max_queued = (unsigned)c->mqtt_max_queued},
    };
    if (c->mqtt_host[0] == '\0')
        return ERR_OK;
    enum err e = mqtt_files_check(c, message);
    if (e)
        return e;
    e = mqtt_new(&mc, &s->service, &s->mqtt);
    return e ? message_of(message, e, "[mqtt]") : ERR_OK;
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
    if (s->revocation)
        json_int(&line, "revocation_port", listener_port(s->revocation));
    if (s->scep)
        json_int(&line, "scep_port", listener_port(s->scep));
    log_end(&line, LOG_INFO);
    if (s->config->listen_ports_file[0] == '\0')
        return ERR_OK;
    buf_init(&b, MAX_PORTS_BYTES);
    buf_printf(&b, "device=%u\nadmin=%u\n", listener_port(s->device), listener_port(s->admin));
    if (s->proxy && listener_port(s->proxy) > 0)
        buf_printf(&b, "proxy=%u\n", listener_port(s->proxy));
    if (s->revocation && listener_port(s->revocation) > 0)
        buf_printf(&b, "revocation=%u\n", listener_port(s->revocation));
    if (s->scep && listener_port(s->scep) > 0)
        buf_printf(&b, "scep=%u\n", listener_port(s->scep));
    enum err e = file_store(s->config->listen_ports_file, buf_bytes(&b), 0644);
    return e ? message_of(message, e, "[listen] ports_file") : ERR_OK;
}

static enum err events_make(struct server *s, char *message)
{
    const struct events_config events = {.ca = config_optional(s->config->hook_ca),
                                         .publish = s->mqtt ? mqtt_event : NULL,
                                         .ctx = s->mqtt};
    return service_events(&s->service, s->config, &events, &s->events, message);
}

static void journal_look_after(void *journal)
{
    journal_tick(journal);
}

/* Handshakes take the snapshot as it is, and where nobody asks anything it would grow old. */
static void catalog_look_at(void *catalog)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    (void)!catalog_get(catalog, &snapshot);
}

static enum err jobs_make(struct server *s, char *message)
{
    const struct maintain_settings settings = retention_of(s->config);
    enum err e = jobs_new(&s->service, &settings, &s->jobs);
    if (!e && s->service.journal)
        e = ticker_new(journal_look_after, s->service.journal, &s->journal_ticker);
    if (!e)
        e = ticker_new(catalog_look_at, s->service.catalog, &s->catalog_ticker);
    return e ? message_of(message, e, "background jobs") : ERR_OK;
}

enum err server_new(const struct config *config, const struct route_table *const *device_tables,
                    size_t device_count, const struct route_table *const *admin_tables,
                    size_t admin_count, struct server **ret_server,
                    char message[CONFIG_MESSAGE_BYTES])
{
    struct server *s = calloc(1, sizeof(*s));
    if (!s)
        return message_of(message, ERR_NO_MEMORY, "server");
    s->started = s->config = config;
    s->service.device_gate = &s->device_gate;
    s->service.admin_gate = &s->admin_gate;
    enum err e = gates_make(s, message);
    if (!e)
        e = server_database(config, &s->db, message);
    if (!e)
        e = server_schema_check(s->db, message);
    if (!e)
        e = service_init(&s->service, s->db, config, message);
    if (!e)
        e = identity_make(s, message);
    if (!e)
        e = device_listen(s, device_tables, device_count, message);
    if (!e)
        e = proxy_listen(s, device_tables, device_count, message);
    if (!e)
        e = revocation_listen(s, message);
    if (!e)
        e = scep_listen(s, message);
    if (!e)
        e = admin_listen(s, admin_tables, admin_count, message);
    if (!e)
        e = mqtt_make(s, message);
    if (!e)
        e = jobs_make(s, message);
    if (!e)
        e = events_make(s, message);
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
        return message_of(message, ERR_INVALID, "[log] level must be debug, info, warn or error");
    struct loaded *l = calloc(1, sizeof(*l));
    if (!l)
        return message_of(message, ERR_NO_MEMORY, "reload");
    l->config = TAKE_PTR(c);
    *ret_loaded = l;
    return ERR_OK;
}

static enum err identity_reload(struct server *s, char *message)
{
    enum err e = tls_identity_reload(s->identity);
    log_text(e ? LOG_ERROR : LOG_INFO, "tls.reload", "result", e ? err_name(e) : "ok");
    s->service.server_cert_ends_s = tls_identity_ends_s(s->identity);
    return e ? message_of(message, e, "[tls] certificate and key") : ERR_OK;
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
    service_live(&s->service, l->config);
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
static size_t listeners_of(const struct server *s, struct listener *ret[MAX_LISTENERS])
{
    struct listener *const all[MAX_LISTENERS] = {s->device, s->admin, s->proxy, s->revocation,
                                                 s->scep};
    size_t n = 0;
    for (size_t i = 0; i < MAX_LISTENERS; i++) {
        if (all[i])
            ret[n++] = all[i];
    }
    return n;
}

static unsigned requests_under_way(const struct server *s)
{
    struct listener *all[MAX_LISTENERS];
    unsigned sum = 0;
    for (size_t i = listeners_of(s, all); i > 0; i--)
        sum += listener_active(all[i - 1]);
    return s->mqtt ? sum + mqtt_active(s->mqtt) : sum;
}

static unsigned connections_open(const struct server *s)
{
    struct listener *all[MAX_LISTENERS];
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
    struct listener *all[MAX_LISTENERS];
    size_t count = listeners_of(s, all);
    atomic_store(&s->service.draining, true);
    for (size_t i = 0; i < count; i++)
        listener_quiesce(all[i]);
    if (s->mqtt)
        mqtt_quiesce(s->mqtt);
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
    ticker_free(s->catalog_ticker);
    ticker_free(s->journal_ticker);
    events_free(s->events);
    mqtt_free(s->mqtt);
    listener_free(s->scep);
    listener_free(s->revocation);
    listener_free(s->proxy);
    listener_free(s->admin);
    listener_free(s->device);
    if (s->gates_made) {
        gate_done(&s->revocation_gate);
        gate_done(&s->admin_gate);
        gate_done(&s->device_gate);
    }
    trust_free(s->proxy_trust);
    trust_free(s->admin_trust);
    tls_identity_free(s->identity);
    service_done(&s->service);
    db_free(s->db);
    while (s->loaded) {
        struct loaded *older = s->loaded->older;
        loaded_free(s->loaded);
        s->loaded = older;
    }
    free(s);
}
