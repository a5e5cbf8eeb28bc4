#include "http/probe.h"

#include <gnutls/gnutls.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "http/address.h"
#include "http/proxy_v2.h"

enum {
    REQUEST_BYTES = 256,
    STATUS_AT = sizeof("HTTP/1.1 ") - 1,
    STATUS_LINE_BYTES = sizeof("HTTP/1.1 200") - 1,
};

DEFINE_CLEANUP(gnutls_session_t, gnutls_deinit);
DEFINE_CLEANUP(gnutls_certificate_credentials_t, gnutls_certificate_free_credentials);

static const char *address_reachable(const char *address)
{
    if (strcmp(address, "0.0.0.0") == 0)
        return "127.0.0.1";
    return strcmp(address, "::") == 0 ? "::1" : address;
}

/* The kernel applies the sending timeout to connect() as well. */
static enum err connect_to(const struct probe *p, const struct addrinfo *to, int *ret_fd)
{
    const struct timeval limit = {.tv_sec = p->timeout_ms / 1000,
                                  .tv_usec = p->timeout_ms % 1000 * 1000};
    _cleanup_(closep) int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
        connect(fd, to->ai_addr, to->ai_addrlen) < 0)
        return ERR_SYSTEM;
    *ret_fd = fd;
    fd = -1;
    return ERR_OK;
}

/* LOCAL: the connection is the balancer's own and speaks for nobody. */
static enum err proxy_header_send(const struct probe *p, const struct addrinfo *to, int fd)
{
    static const uint8_t local[PROXY_V2_FIXED_BYTES] = "\r\n\r\n\0\r\nQUIT\n\x20";
    struct address_list balancers;
    struct sockaddr_storage address = {0};
    memcpy(&address, to->ai_addr, to->ai_addrlen);
    enum err e = address_list_parse(p->balancers ? p->balancers : "", &balancers);
    if (e || !address_list_has(&balancers, &address))
        return e;
    return send(fd, local, sizeof(local), MSG_NOSIGNAL) == (ssize_t)sizeof(local) ? ERR_OK
                                                                                  : ERR_SYSTEM;
}

static enum err connection_open(const struct probe *p, int *ret_fd)
{
    char service[8];
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *to = NULL;
    snprintf(service, sizeof(service), "%u", p->port);
    if (getaddrinfo(address_reachable(p->address), service, &hints, &to) != 0)
        return ERR_INVALID;
    enum err e = connect_to(p, to, ret_fd);
    if (!e)
        e = proxy_header_send(p, to, *ret_fd);
    freeaddrinfo(to);
    return e;
}

/* The first bytes of the answer; a listener that closes before them has not answered. */
static enum err answer_read(gnutls_session_t session, char ret_line[STATUS_LINE_BYTES + 1])
{
    size_t have = 0;
    while (have < STATUS_LINE_BYTES) {
        ssize_t n = gnutls_record_recv(session, ret_line + have, STATUS_LINE_BYTES - have);
        if (n == GNUTLS_E_INTERRUPTED)
            continue;
        if (n <= 0)
            return ERR_SYSTEM;
        have += (size_t)n;
    }
    ret_line[have] = '\0';
    return ERR_OK;
}

static enum err status_parse(const char *line, int *ret_status)
{
    int64_t status = 0;
    if (strncmp(line, "HTTP/1.1 ", STATUS_AT) != 0 ||
        text_parse_int(line + STATUS_AT, 100, 599, &status))
        return ERR_INVALID;
    *ret_status = (int)status;
    return ERR_OK;
}

static enum err ask(gnutls_session_t session, const char *path, int *ret_status)
{
    char request[REQUEST_BYTES];
    char line[STATUS_LINE_BYTES + 1];
    int n = snprintf(request, sizeof(request),
                     "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    if (n < 0 || (size_t)n >= sizeof(request))
        return ERR_INVALID;
    if (gnutls_handshake(session) < 0 || gnutls_record_send(session, request, (size_t)n) != n)
        return ERR_SYSTEM;
    enum err e = answer_read(session, line);
    return e ? e : status_parse(line, ret_status);
}

enum err probe_get(const struct probe *p, int *ret_status)
{
    _cleanup_(gnutls_certificate_free_credentialsp) gnutls_certificate_credentials_t none = NULL;
    _cleanup_(closep) int fd = -1;
    _cleanup_(gnutls_deinitp) gnutls_session_t session = NULL;
    enum err e = connection_open(p, &fd);
    if (e)
        return e;
    if (gnutls_certificate_allocate_credentials(&none) < 0 ||
        gnutls_init(&session, GNUTLS_CLIENT) < 0 || gnutls_set_default_priority(session) < 0 ||
        gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, none) < 0)
        return ERR_NO_MEMORY;
    gnutls_transport_set_int(session, fd);
    return ask(session, p->path, ret_status);
}
