#include "http/listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json_out.h"
#include "base/limit.h"
#include "base/log.h"
#include "enroll/service.h"
#include "http/accept.h"
#include "http/psk.h"
#include "http/request.h"
#include "http/socket.h"
#include "http/tls.h"

enum {
    THREAD_STACK_BYTES = 512 * 1024,
    SPARE_CONNECTIONS = 64, /* that libmicrohttpd has not cleared away when we have */
    LOGGED_PER_S = 1,       /* connections without a request, from one source */
    LOGGED_BURST = 10,
};

/* A connection that ended without a request: counted, and told of where it says something. A
 * balancer's health check that connects and sends nothing does not. */
static void unasked_report(struct listener *l, const char *source, int64_t accepted_us,
                           const struct handshake *h, const char *why)
{
    int64_t now_us = clock_mono_us();
    enum log_level level = h && h->received == 0 ? LOG_DEBUG : LOG_INFO;
    struct buf b;
    metrics_unasked(l->service->metrics, l->config.metrics);
    if (level == LOG_INFO && !source_limit_take(l->log_limit, source, now_us))
        return;
    log_begin(&b, level, "connection.without_request");
    json_text(&b, "listener", l->config.name);
    json_text(&b, "source", source);
    if (h)
        handshake_describe(h, &b);
    else
        json_text(&b, "reason", why);
    json_int(&b, "ms", (now_us - accepted_us) / 1000);
    log_end(&b, level);
}

static void connection_started(struct listener *l, struct MHD_Connection *mhd,
                               void **socket_context)
{
    const union MHD_ConnectionInfo *fd =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct connection *c = fd ? connections_begin(&l->connections, fd->connect_fd) : NULL;
    *socket_context = c;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    if (!c || !info || !info->tls_session)
        return;
    tls_request_certificate(info->tls_session);
    handshake_watch(&c->handshake, info->tls_session, c->fd);
    if (l->door)
        psk_door_offer(l->door, info->tls_session, &c->handshake);
}

/* The TLS session is gone already, the socket is still open. */
static void connection_notify(void *cls, struct MHD_Connection *mhd, void **socket_context,
                              enum MHD_ConnectionNotificationCode toe)
{
    struct listener *l = cls;
    metrics_connection(l->service->metrics, l->config.metrics,
                       toe == MHD_CONNECTION_NOTIFY_STARTED);
    if (toe == MHD_CONNECTION_NOTIFY_STARTED) {
        connection_started(l, mhd, socket_context);
        return;
    }
    struct connection *c = *socket_context;
    if (!c)
        return;
    if (!c->asked)
        unasked_report(l, c->source, c->accepted_us, &c->handshake, NULL);
    connections_remove(&l->connections, c->fd);
}

static void mhd_log(void *cls, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void mhd_log(void *cls, const char *fmt, va_list ap)
{
    char text[256];
    (void)cls;
    handshake_trouble();
    vsnprintf(text, sizeof(text), fmt, ap);
    text[strcspn(text, "\n")] = '\0';
    log_text(LOG_DEBUG, "http.library", "message", text);
}

/* Paths are split before they are decoded: a %2F inside a segment is no separator. */
static size_t no_unescape(void *cls, struct MHD_Connection *connection, char *text)
{
    (void)cls;
    (void)connection;
    return strlen(text);
}

static struct MHD_Daemon *daemon_start(struct listener *l)
{
    const struct listener_config *c = &l->config;
    bool tls = !c->clear && !socket_local_path(c->address);
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_USE_POLL | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC | MHD_USE_ERROR_LOG |
                     (tls ? MHD_USE_TLS : 0);
    struct MHD_OptionItem tls_options[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(uintptr_t)tls_identity_retrieve},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)tls_priorities},
        {MHD_OPTION_END, 0, NULL},
    };
    return MHD_start_daemon(
        flags, 0, NULL, NULL, request_access, l, MHD_OPTION_EXTERNAL_LOGGER, mhd_log, l,
        MHD_OPTION_UNESCAPE_CALLBACK, no_unescape, NULL, MHD_OPTION_NOTIFY_CONNECTION,
        connection_notify, l, MHD_OPTION_NOTIFY_COMPLETED, request_completed, l,
        MHD_OPTION_CONNECTION_LIMIT, c->max_connections + SPARE_CONNECTIONS,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, c->max_connections_per_address,
        MHD_OPTION_CONNECTION_TIMEOUT, c->idle_timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        c->memory_bytes, MHD_OPTION_THREAD_STACK_SIZE, (size_t)THREAD_STACK_BYTES, MHD_OPTION_ARRAY,
        tls ? tls_options : &tls_options[2], MHD_OPTION_END);
}

static void socket_lost(void *owner, const struct sockaddr_storage *source, const char *why,
                        int64_t accepted_us)
{
    char text[ADDRESS_TEXT_BYTES];
    address_text(source, text);
    unasked_report(owner, text, accepted_us, NULL, why);
}

/* libmicrohttpd closes what it does not take. */
static void socket_ready(void *owner, int fd, const struct sockaddr_storage *source,
                         int64_t accepted_us)
{
    struct listener *l = owner;
    enum err e =
        connections_add(&l->connections, fd, source, accepted_us, l->config.max_connections);
    if (e) {
        close(fd);
        socket_lost(l, source,
                    e == ERR_UNAVAILABLE ? "max_connections is reached" : "out of memory",
                    accepted_us);
        return;
    }
    if (MHD_add_connection(l->daemon, fd, (const struct sockaddr *)source,
                           address_length(source)) == MHD_YES)
        return;
    bool full = errno == ENFILE;
    connections_remove(&l->connections, fd);
    socket_lost(l, source,
                full ? "max_connections_per_address is reached" : "the connection cannot be served",
                accepted_us);
}

static void requests_expire(void *owner, int64_t now_us)
{
    struct listener *l = owner;
    connections_expire(&l->connections, now_us - (int64_t)l->config.request_timeout_s * 1000000);
}

static bool connections_exist(void *owner)
{
    struct listener *l = owner;
    return connections_count(&l->connections) > 0;
}

static const struct accept_events accept_events = {
    .ready = socket_ready,
    .lost = socket_lost,
    .tick = requests_expire,
    .busy = connections_exist,
};

static enum err listener_start(struct listener *l)
{
    int fd = -1;
    enum err e = address_list_parse(l->config.balancers ? l->config.balancers : "", &l->balancers);
    if (!e)
        e = source_limit_new(LOGGED_PER_S, LOGGED_BURST, &l->log_limit);
    if (!e && l->config.psk)
        e = psk_door_new(l->service->catalog, &l->door);
    if (!e)
        e = socket_listen(l->config.address, l->config.port, &fd);
    if (e)
        return e;
    l->port = socket_port(fd);
    l->daemon = daemon_start(l);
    e = l->daemon ? accept_new(fd, &l->balancers, &accept_events, l, &l->acceptor) : ERR_SYSTEM;
    if (e)
        close(fd);
    return e;
}

enum err listener_new(const struct listener_config *config, struct service *service,
                      struct gate *gate, struct listener **ret_listener)
{
    struct listener *l = calloc(1, sizeof(*l));
    if (!l)
        return ERR_NO_MEMORY;
    l->config = *config;
    l->service = service;
    l->gate = gate;
    connections_init(&l->connections, &service->coming);
    enum err e = listener_start(l);
    if (e)
        listener_free(l);
    else
        *ret_listener = l;
    return e;
}

uint16_t listener_port(const struct listener *l)
{
    return l->port;
}

void listener_quiesce(struct listener *l)
{
    const char *path = socket_local_path(l->config.address);
    atomic_store(&l->quiesced, true);
    if (path)
        unlink(path);
    accept_quiesce(l->acceptor);
}

void listener_refuse(struct listener *l)
{
    atomic_store(&l->refusing, true);
}

unsigned listener_connections(struct listener *l)
{
    return connections_count(&l->connections) + accept_pending(l->acceptor);
}

unsigned listener_active(const struct listener *l)
{
    return atomic_load(&l->active);
}

void listener_free(struct listener *l)
{
    if (!l)
        return;
    accept_free(l->acceptor);
    if (l->daemon)
        MHD_stop_daemon(l->daemon);
    psk_door_free(l->door);
    connections_done(&l->connections);
    source_limit_free(l->log_limit);
    free(l);
}
