#include "http/listener.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "enroll/service.h"
#include "http/request.h"
#include "http/tls.h"

enum { THREAD_STACK_BYTES = 512 * 1024, CONNECTION_MEMORY_BYTES = 16 * 1024, BACKLOG = 1024 };

static void connection_notify(void *cls, struct MHD_Connection *connection, void **socket_context,
                              enum MHD_ConnectionNotificationCode toe)
{
    const struct listener *l = cls;
    (void)socket_context;
    metrics_connection(l->service->metrics, l->config.metrics,
                       toe == MHD_CONNECTION_NOTIFY_STARTED);
    if (toe != MHD_CONNECTION_NOTIFY_STARTED)
        return;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    if (info && info->tls_session)
        tls_request_certificate(info->tls_session);
}

static void mhd_log(void *cls, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void mhd_log(void *cls, const char *fmt, va_list ap)
{
    char text[256];
    const struct listener *l = cls;
    (void)l;
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

static enum err address_resolve(const struct listener_config *c,
                                struct sockaddr_storage *ret_address)
{
    char port[8];
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    snprintf(port, sizeof(port), "%u", c->port);
    if (getaddrinfo(c->address, port, &hints, &found) != 0)
        return ERR_INVALID;
    memcpy(ret_address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return ERR_OK;
}

static struct MHD_Daemon *daemon_start(struct listener *l, struct sockaddr_storage *address)
{
    const struct listener_config *c = &l->config;
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_USE_POLL | MHD_USE_TLS | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    if (address->ss_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    return MHD_start_daemon(
        flags, c->port, NULL, NULL, request_access, l, MHD_OPTION_EXTERNAL_LOGGER, mhd_log, l,
        MHD_OPTION_SOCK_ADDR, (struct sockaddr *)address, MHD_OPTION_HTTPS_CERT_CALLBACK,
        tls_identity_retrieve, MHD_OPTION_HTTPS_PRIORITIES, tls_priorities,
        MHD_OPTION_UNESCAPE_CALLBACK, no_unescape, NULL, MHD_OPTION_NOTIFY_CONNECTION,
        connection_notify, l, MHD_OPTION_NOTIFY_COMPLETED, request_completed, l,
        MHD_OPTION_CONNECTION_LIMIT, c->max_connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        c->max_connections_per_address, MHD_OPTION_CONNECTION_TIMEOUT, c->idle_timeout_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES,
        MHD_OPTION_THREAD_STACK_SIZE, (size_t)THREAD_STACK_BYTES, MHD_OPTION_LISTEN_BACKLOG_SIZE,
        (unsigned)BACKLOG, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
}

enum err listener_new(const struct listener_config *config, struct service *service,
                      struct gate *gate, struct listener **ret_listener)
{
    struct sockaddr_storage address = {0};
    enum err e = address_resolve(config, &address);
    if (e)
        return e;
    struct listener *l = calloc(1, sizeof(*l));
    if (!l)
        return ERR_NO_MEMORY;
    l->config = *config;
    l->service = service;
    l->gate = gate;
    l->daemon = daemon_start(l, &address);
    if (!l->daemon) {
        free(l);
        return ERR_SYSTEM;
    }
    *ret_listener = l;
    return ERR_OK;
}

uint16_t listener_port(const struct listener *l)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_BIND_PORT);
    return info ? info->port : 0;
}

void listener_quiesce(struct listener *l)
{
    atomic_store(&l->quiesced, true);
    MHD_socket s = MHD_quiesce_daemon(l->daemon);
    if (s != MHD_INVALID_SOCKET)
        close(s);
}

void listener_refuse(struct listener *l)
{
    atomic_store(&l->refusing, true);
}

unsigned listener_connections(const struct listener *l)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
    return info ? info->num_connections : 0;
}

unsigned listener_active(const struct listener *l)
{
    return atomic_load(&l->active);
}

void listener_free(struct listener *l)
{
    if (!l)
        return;
    MHD_stop_daemon(l->daemon);
    free(l);
}
