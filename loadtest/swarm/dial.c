#include "dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"

DEFINE_CLEANUP(SSL *, SSL_free);

static enum err tls_make(const struct dial_target *target, X509 *certificate, EVP_PKEY *key, int fd,
                         SSL **ret_ssl)
{
    _cleanup_(SSL_freep) SSL *ssl = SSL_new(target->tls);
    if (!ssl || !SSL_set_fd(ssl, fd))
        return ERR_NO_MEMORY;
    SSL_set_connect_state(ssl);
    /* an address is no name: each stands in the certificate in a place of its own */
    if (!X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), target->host) &&
        !SSL_set1_host(ssl, target->host))
        return ERR_NO_MEMORY;
    if (certificate &&
        (SSL_use_certificate(ssl, certificate) != 1 || SSL_use_PrivateKey(ssl, key) != 1))
        return ERR_INVALID;
    *ret_ssl = TAKE_PTR(ssl);
    return ERR_OK;
}

enum err dial_resolve(struct dial_target *t, const char *host, const char *port)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return ERR_NOT_FOUND;
    memcpy(&t->address, found->ai_addr, sizeof(t->address));
    freeaddrinfo(found);
    t->host = host;
    return ERR_OK;
}

enum err dial_open(const struct dial_target *target, X509 *certificate, EVP_PKEY *key, int *ret_fd,
                   SSL **ret_ssl)
{
    const int on = 1;
    _cleanup_(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return ERR_SYSTEM;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, (const struct sockaddr *)&target->address, sizeof(target->address)) != 0 &&
        errno != EINPROGRESS)
        return ERR_SYSTEM;
    enum err e = target->tls ? tls_make(target, certificate, key, fd, ret_ssl) : ERR_OK;
    if (!e) {
        *ret_fd = fd;
        fd = -1;
    }
    return e;
}

bool dial_connected(int fd)
{
    int error = 0;
    socklen_t len = sizeof(error);
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0;
}

bool dial_wait(const struct dial_target *target, struct watch *w, const SSL *ssl, int n)
{
    int why = SSL_get_error(ssl, n);
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) {
        ERR_clear_error(); /* of this connection: the next would be taken to have failed too */
        return false;
    }
    loop_rewatch(target->loop, w, why == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT);
    return true;
}

/* What a call of the socket that returned n comes to. */
static int plain_result(const struct dial_target *target, struct watch *w, ssize_t n,
                        uint32_t events)
{
    if (n > 0)
        return (int)n;
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        return -1;
    loop_rewatch(target->loop, w, events);
    return 0;
}

int dial_read(const struct dial_target *target, struct watch *w, SSL *ssl, void *data, size_t len)
{
    if (!ssl)
        return plain_result(target, w, recv(w->fd, data, len, 0), EPOLLIN);
    int n = SSL_read(ssl, data, (int)len);
    return n > 0 ? n : dial_wait(target, w, ssl, n) ? 0 : -1;
}

int dial_write(const struct dial_target *target, struct watch *w, SSL *ssl, const void *data,
               size_t len)
{
    if (!ssl)
        return plain_result(target, w, send(w->fd, data, len, MSG_NOSIGNAL), EPOLLOUT);
    int n = SSL_write(ssl, data, (int)len);
    return n > 0 ? n : dial_wait(target, w, ssl, n) ? 0 : -1;
}
