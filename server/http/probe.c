#include "http/probe.h"

#include <gnutls/gnutls.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/cleanup.h"

static const char question[] =
    "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
static const char expected[] = "HTTP/1.1 200 ";

static int dial(const char *address, uint16_t port, unsigned timeout_ms)
{
    char service[8];
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    struct timeval wait = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    snprintf(service, sizeof(service), "%u", port);
    if (getaddrinfo(address, service, &hints, &found) != 0)
        return -1;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0 &&
                setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0 &&
                connect(fd, found->ai_addr, found->ai_addrlen) == 0;
    freeaddrinfo(found);
    if (good)
        return fd;
    closep(&fd);
    return -1;
}

/* gnutls says GNUTLS_E_AGAIN when the socket's time is over: that is an answer too late. */
static bool asked(gnutls_session_t session)
{
    char answer[sizeof(expected)] = "";
    size_t got = 0;
    ssize_t n = gnutls_handshake(session);
    if (n >= 0)
        n = gnutls_record_send(session, question, strlen(question));
    while (n > 0 && got < strlen(expected)) {
        n = gnutls_record_recv(session, answer + got, strlen(expected) - got);
        got += n > 0 ? (size_t)n : 0;
    }
    return n > 0 && strcmp(answer, expected) == 0;
}

static enum err converse(int fd, gnutls_certificate_credentials_t none, unsigned timeout_ms)
{
    gnutls_session_t session = NULL;
    if (gnutls_init(&session, GNUTLS_CLIENT) < 0)
        return ERR_NO_MEMORY;
    gnutls_transport_set_int(session, fd);
    gnutls_handshake_set_timeout(session, timeout_ms);
    bool good = gnutls_set_default_priority(session) >= 0 &&
                gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, none) >= 0 &&
                asked(session);
    gnutls_deinit(session);
    return good ? ERR_OK : ERR_UNAVAILABLE;
}

enum err probe_health(const char *address, uint16_t port, unsigned timeout_ms)
{
    gnutls_certificate_credentials_t none = NULL;
    _cleanup_(closep) int fd = dial(address, port, timeout_ms);
    if (fd < 0)
        return ERR_UNAVAILABLE;
    if (gnutls_certificate_allocate_credentials(&none) < 0)
        return ERR_NO_MEMORY;
    enum err e = converse(fd, none, timeout_ms);
    gnutls_certificate_free_credentials(none);
    return e;
}
