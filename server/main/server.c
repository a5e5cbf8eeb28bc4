#include "main/server.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/json_out.h"
#include "base/limit.h"
#include "base/log.h"
#include "enroll/catalog.h"
#include "enroll/limits.h"
#include "enroll/service.h"
#include "http/tls.h"
#include "ops/jobs.h"
#include "store/enrol.h"
#include "store/migrate.h"

enum {
    MAX_PASSWORD_BYTES = 1024,
    MAX_PORTS_BYTES = 256,
    DEVICE_ARENA_BYTES = 4 << 20,
    ADMIN_ARENA_BYTES = 256 << 20,
    ADMIN_CONNECTIONS = 128,
    ADMIN_INSIDE = 8,
    ADMIN_WAITING = 120,
    DRAIN_LOOK_MS = 20,
    DRAIN_SETTLE_MS = 500, /* for connections in their handshake */
};

struct server {
    const struct config *config;
    struct db *db;
    struct service service;
    struct tls_identity *identity;
    struct gate device_gate;
    struct gate admin_gate;
    bool gates_made;
    struct listener *device;
    struct listener *admin;
    struct jobs *jobs;
};

static enum err failed(char *message, enum err e, const char *what)
{
    snprintf(message, CONFIG_MESSAGE_BYTES, "%s: %s", what,
             e == ERR_DENIED ? "the file must be readable by its owner only (mode 0600)"
                             : err_name(e));
    return e;
}

/* The first line of the file. */
static enum err password_load(const struct config *c, struct buf *ret)
{
    buf_init(ret, MAX_PASSWORD_BYTES);
    if (c->database_password_file[0] == '\0')
        return ERR_OK;
    enum err e = file_load_private(c->database_password_file, ret);
    if (e)
        return e;
    if (ret->len > 0)
        ret->data[strcspn(buf_text(ret), "\r\n")] = '\0';
    return ERR_OK;
}

enum err server_database(const struct config *c, struct db **ret_db,
                         char message[CONFIG_MESSAGE_BYTES])
{
    _cleanup_(buf_donep) struct buf password = {0};
    enum err e = password_load(c, &password);
    if (e)
        return failed(message, e, "database password file");
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

static enum err schema_check(struct db *db, char *message)
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

static enum err service_make(struct server *s, char *message)
{
    const struct config *c = s->config;
    s->service.db = s->db;
    s->service.default_template = config_optional(c->enrol_default_template);
    s->service.ca_dir = c->ca_directory;
    s->service.device_gate = &s->device_gate;
    s->service.admin_gate = &s->admin_gate;
    enum err e = catalog_new(s->db, c->ca_directory, &s->service.catalog);
    if (!e)
        e = metrics_new(&s->service.metrics);
    if (!e)
        e = committer_new(s->db, &s->service.committer);
    if (!e)
        e = source_limit_new((double)c->trail_records_per_source_s,
                             (unsigned)c->trail_records_per_source_burst, &s->service.trail_limit);
    if (!e)
        e = source_limit_new((double)c->enrol_refused_tokens_per_source_s,
                             (unsigned)c->enrol_refused_tokens_burst, &s->service.token_limit);
    if (!e)
        e = source_limit_new((double)c->admin_login_failures_per_minute / 60,
                             (unsigned)c->admin_login_failures_per_minute, &s->service.login_limit);
    const struct limits_config limits = limits_settings(c);
    if (!e)
        e = limits_new(&limits, limits_database, s->db, &s->service.limits);
    return e ? failed(message, e, "service") : ERR_OK;
}

static enum err identity_make(struct server *s, char *message)
{
    enum err e = tls_identity_new(s->config->tls_certificate, s->config->tls_key, &s->identity);
    if (e)
        return failed(message, e, "[tls] certificate and key");
    tls_identity_install(s->identity);
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

static enum err device_listen(struct server *s, const struct route_table *const *tables,
                              size_t count, char *message)
{
    const struct config *c = s->config;
    struct listener_config lc = {
        .name = "device",
        .metrics = METRICS_DEVICE,
        .address = c->listen_device_address,
        .port = (uint16_t)c->listen_device_port,
        .max_connections = (unsigned)c->listen_max_connections,
        .max_connections_per_address = (unsigned)c->listen_max_connections_per_address,
        .idle_timeout_s = (unsigned)c->listen_idle_timeout_s,
        .queue_timeout_ms = (unsigned)c->listen_queue_timeout_ms,
        .request_arena_bytes = DEVICE_ARENA_BYTES,
        .table_count = count,
    };
    memcpy(lc.tables, tables, count * sizeof(*tables));
    enum err e = listener_new(&lc, &s->service, &s->device_gate, &s->device);
    return e ? failed(message, e, "device listener: address or port") : ERR_OK;
}

static enum err admin_listen(struct server *s, const struct route_table *const *tables,
                             size_t count, char *message)
{
    const struct config *c = s->config;
    struct listener_config lc = {
        .name = "admin",
        .metrics = METRICS_ADMIN,
        .address = c->listen_admin_address,
        .port = (uint16_t)c->listen_admin_port,
        .max_connections = ADMIN_CONNECTIONS,
        .idle_timeout_s = (unsigned)c->listen_idle_timeout_s,
        .queue_timeout_ms = (unsigned)c->listen_queue_timeout_ms,
        .request_arena_bytes = ADMIN_ARENA_BYTES,
        .table_count = count,
    };
    memcpy(lc.tables, tables, count * sizeof(*tables));
    enum err e = listener_new(&lc, &s->service, &s->admin_gate, &s->admin);
    return e ? failed(message, e, "admin listener: address or port") : ERR_OK;
}

static enum err ports_publish(const struct server *s, char *message)
{
    _cleanup_(buf_donep) struct buf b = {0};
    struct buf line;
    log_begin(&line, LOG_INFO, "server.listening");
    json_int(&line, "device_port", listener_port(s->device));
    json_int(&line, "admin_port", listener_port(s->admin));
    log_end(&line, LOG_INFO);
    if (s->config->listen_ports_file[0] == '\0')
        return ERR_OK;
    buf_init(&b, MAX_PORTS_BYTES);
    buf_printf(&b, "device=%u\nadmin=%u\n", listener_port(s->device), listener_port(s->admin));
    enum err e = file_store(s->config->listen_ports_file, buf_bytes(&b), 0644);
    return e ? failed(message, e, "[listen] ports_file") : ERR_OK;
}

static enum err jobs_make(struct server *s, char *message)
{
    const struct maintain_settings settings = {
        .history_days = (int)s->config->retention_history_days,
        .outbox_days = (int)s->config->retention_outbox_days,
        .audit_days = (int)s->config->retention_audit_days,
    };
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
    s->config = config;
    enum err e = gates_make(s, message);
    if (!e)
        e = server_database(config, &s->db, message);
    if (!e)
        e = schema_check(s->db, message);
    if (!e)
        e = service_make(s, message);
    if (!e)
        e = identity_make(s, message);
    if (!e)
        e = device_listen(s, device_tables, device_count, message);
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

void server_reload(struct server *s)
{
    enum err e = tls_identity_reload(s->identity);
    log_text(e ? LOG_ERROR : LOG_INFO, "tls.reload", "result", e ? err_name(e) : "ok");
}

static void look_again(void)
{
    const struct timespec look = {.tv_nsec = DRAIN_LOOK_MS * 1000000L};
    nanosleep(&look, NULL);
}

static unsigned requests_under_way(const struct server *s)
{
    return listener_active(s->device) + listener_active(s->admin);
}

/* First everybody who is connected may still ask; who then asks is refused. A request raises
 * `active` before it looks whether it is refused, so none slips between the two. */
void server_drain(struct server *s)
{
    int64_t looks = s->config->listen_drain_timeout_s * 1000 / DRAIN_LOOK_MS;
    int64_t settle = DRAIN_SETTLE_MS / DRAIN_LOOK_MS;
    atomic_store(&s->service.draining, true);
    listener_quiesce(s->device);
    listener_quiesce(s->admin);
    for (; settle > 0 && listener_connections(s->device) + listener_connections(s->admin) > 0;
         settle--)
        look_again();
    while (looks-- > 0 && requests_under_way(s) > 0)
        look_again();
    listener_refuse(s->device);
    listener_refuse(s->admin);
    while (looks-- > 0 && requests_under_way(s) > 0)
        look_again();
}

void server_free(struct server *s)
{
    if (!s)
        return;
    jobs_free(s->jobs);
    listener_free(s->admin);
    listener_free(s->device);
    if (s->gates_made) {
        gate_done(&s->admin_gate);
        gate_done(&s->device_gate);
    }
    tls_identity_free(s->identity);
    limits_free(s->service.limits);
    source_limit_free(s->service.token_limit);
    source_limit_free(s->service.login_limit);
    source_limit_free(s->service.trail_limit);
    committer_free(s->service.committer);
    metrics_free(s->service.metrics);
    catalog_free(s->service.catalog);
    db_free(s->db);
    free(s);
}
