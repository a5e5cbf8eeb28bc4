#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pkcs7.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_AT_ONCE = 64, PATIENCE_MS = 60000, HANDSHAKES_AT_ONCE = 32 };

struct conn {
    int fd;
    SSL *ssl;
    struct job *job; /* NULL: held open */
    int64_t started_us;
    size_t sent;
    size_t got;
    char answer[CLIENT_MAX_ANSWER_BYTES + 1];
};

struct client {
    SSL_CTX *tls;
    int epoll;
    struct sockaddr_in address;
    SSL **held;
    size_t held_count;
};

enum progress { PROGRESS_WAIT, PROGRESS_DONE, PROGRESS_FAILED };

int64_t client_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

struct client *client_new(const char *cafile, int port)
{
    int groups[] = {NID_X25519};
    struct client *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->tls = SSL_CTX_new(TLS_client_method());
    c->address = (struct sockaddr_in){.sin_family = AF_INET,
                                      .sin_port = htons((uint16_t)port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (c->epoll < 0 || !c->tls || !SSL_CTX_load_verify_file(c->tls, cafile) ||
        !SSL_CTX_set_min_proto_version(c->tls, TLS1_3_VERSION) ||
        !SSL_CTX_set1_groups(c->tls, groups, 1) ||
        !X509_VERIFY_PARAM_set1_ip_asc(SSL_CTX_get0_param(c->tls), "127.0.0.1")) {
        client_free(c);
        return NULL;
    }
    SSL_CTX_set_verify(c->tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(c->tls, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(c->tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS);
    return c;
}

static void ssl_close(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);
    SSL_free(ssl);
    if (fd >= 0)
        close(fd);
}

void client_free(struct client *c)
{
    for (size_t i = 0; i < c->held_count; i++)
        ssl_close(c->held[i]);
    free(c->held);
    if (c->epoll >= 0)
        close(c->epoll);
    SSL_CTX_free(c->tls);
    free(c);
}

/* Without TCP_NODELAY a request waits for the acknowledgement of Finished. */
static SSL *ssl_open(struct client *c)
{
    const int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    SSL *ssl = SSL_new(c->tls);
    bool fine = connect(fd, (struct sockaddr *)&c->address, sizeof(c->address)) == 0 ||
                errno == EINPROGRESS;
    if (!ssl || !fine || !SSL_set_fd(ssl, fd)) {
        SSL_free(ssl);
        close(fd);
        return NULL;
    }
    SSL_set_connect_state(ssl);
    return ssl;
}

static enum progress failed(struct conn *x, const char *why)
{
    unsigned long e = ERR_peek_last_error();
    if (x->job)
        snprintf(x->job->why, sizeof(x->job->why), "%.60s %.30s", why,
                 e ? ERR_reason_error_string(e) : "");
    return PROGRESS_FAILED;
}

/* Whether the body is a certs-only PKCS#7 whose certificate is for the job's key. */
static bool certifies(const char *body, EVP_PKEY *key)
{
    size_t len = strlen(body);
    unsigned char *der = malloc(len + 1);
    EVP_ENCODE_CTX *ctx = EVP_ENCODE_CTX_new();
    int got = 0, tail = 0;
    EVP_DecodeInit(ctx);
    bool good = EVP_DecodeUpdate(ctx, der, &got, (const unsigned char *)body, (int)len) >= 0 &&
                EVP_DecodeFinal(ctx, der + got, &tail) == 1;
    EVP_ENCODE_CTX_free(ctx);
    const unsigned char *at = der;
    PKCS7 *p7 = good ? d2i_PKCS7(NULL, &at, got + tail) : NULL;
    good = p7 && PKCS7_type_is_signed(p7) && sk_X509_num(p7->d.sign->cert) > 0 &&
           EVP_PKEY_eq(X509_get0_pubkey(sk_X509_value(p7->d.sign->cert, 0)), key) == 1;
    PKCS7_free(p7);
    free(der);
    return good;
}

static enum progress answer_judge(struct conn *x, const char *body)
{
    if (strncmp(x->answer, "HTTP/1.1 200 ", 13) != 0) {
        x->answer[strcspn(x->answer, "\r\n")] = '\0';
        return failed(x, x->answer);
    }
    if (x->job->key && !certifies(body, x->job->key))
        return failed(x, "the answer has no certificate for the key");
    x->job->good = true;
    return PROGRESS_DONE;
}

/* Whether all that Content-Length promises is there. */
static enum progress answer_check(struct conn *x)
{
    x->answer[x->got] = '\0';
    char *end = strstr(x->answer, "\r\n\r\n");
    char *length = end ? strcasestr(x->answer, "\r\nContent-Length:") : NULL;
    if (!end)
        return PROGRESS_WAIT;
    if (!length || length > end)
        return failed(x, "no Content-Length");
    size_t body = (size_t)(end + 4 - x->answer);
    if (x->got - body < strtoul(length + strlen("\r\nContent-Length:"), NULL, 10))
        return PROGRESS_WAIT;
    return answer_judge(x, end + 4);
}

static enum progress answer_read(struct conn *x)
{
    for (;;) {
        size_t n = 0;
        if (x->got == CLIENT_MAX_ANSWER_BYTES)
            return failed(x, "the answer is too long");
        if (!SSL_read_ex(x->ssl, x->answer + x->got, CLIENT_MAX_ANSWER_BYTES - x->got, &n))
            return SSL_get_error(x->ssl, 0) == SSL_ERROR_WANT_READ ? PROGRESS_WAIT
                                                                   : failed(x, "read");
        x->got += n;
        enum progress p = answer_check(x);
        if (p != PROGRESS_WAIT)
            return p;
    }
}

static enum progress conn_advance(struct conn *x)
{
    ERR_clear_error();
    if (!SSL_is_init_finished(x->ssl)) {
        int e = SSL_get_error(x->ssl, SSL_do_handshake(x->ssl));
        if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
            return PROGRESS_WAIT;
        if (e != SSL_ERROR_NONE)
            return failed(x, "handshake");
    }
    if (!x->job)
        return PROGRESS_DONE;
    while (x->sent < x->job->request_len) {
        size_t n = 0;
        if (!SSL_write_ex(x->ssl, x->job->request + x->sent, x->job->request_len - x->sent, &n))
            return SSL_get_error(x->ssl, 0) == SSL_ERROR_WANT_WRITE ? PROGRESS_WAIT
                                                                    : failed(x, "write");
        x->sent += n;
    }
    return answer_read(x);
}

/* Edge-triggered for both directions: every wake-up goes as far as it can. */
static struct conn *conn_new(struct client *c, struct job *job)
{
    struct conn *x = calloc(1, sizeof(*x));
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = x};
    if (!x)
        return NULL;
    x->started_us = client_now_us();
    x->job = job;
    x->ssl = ssl_open(c);
    if (!x->ssl || epoll_ctl(c->epoll, EPOLL_CTL_ADD, SSL_get_fd(x->ssl), &event)) {
        if (x->ssl)
            ssl_close(x->ssl);
        free(x);
        return NULL;
    }
    return x;
}

static void conn_finish(struct client *c, struct conn *x, enum progress p)
{
    if (x->job) {
        x->job->took_us = client_now_us() - x->started_us;
        SSL_shutdown(x->ssl);
        ssl_close(x->ssl);
    } else if (p == PROGRESS_DONE) {
        epoll_ctl(c->epoll, EPOLL_CTL_DEL, SSL_get_fd(x->ssl), NULL);
        c->held[c->held_count++] = x->ssl;
    } else {
        ssl_close(x->ssl);
    }
    free(x);
}

/* One round of events; returns how many connections ended, good ones counted in ret_good. */
static size_t events_serve(struct client *c, size_t *ret_good)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    size_t ended = 0;
    int n = epoll_wait(c->epoll, events, EVENTS_AT_ONCE, PATIENCE_MS);
    for (int i = 0; i < n; i++) {
        enum progress p = conn_advance(events[i].data.ptr);
        if (p == PROGRESS_WAIT)
            continue;
        *ret_good += p == PROGRESS_DONE;
        conn_finish(c, events[i].data.ptr, p);
        ended++;
    }
    return n > 0 ? ended : SIZE_MAX;
}

/* jobs NULL: connections to hold. */
static size_t run(struct client *c, struct job *jobs, size_t count, size_t at_once)
{
    size_t next = 0, open = 0, good = 0;
    while (next < count || open > 0) {
        for (; next < count && open < at_once; next++)
            open += conn_new(c, jobs ? &jobs[next] : NULL) != NULL;
        size_t ended = open > 0 ? events_serve(c, &good) : 0;
        if (ended == SIZE_MAX)
            break;
        open -= ended;
    }
    return good;
}

size_t client_run(struct client *c, struct job *jobs, size_t count, size_t at_once)
{
    return run(c, jobs, count, at_once);
}

size_t client_hold(struct client *c, size_t count, bool half_open)
{
    c->held = calloc(count, sizeof(SSL *));
    if (!c->held)
        return 0;
    if (!half_open)
        return run(c, NULL, count, HANDSHAKES_AT_ONCE);
    for (size_t i = 0; i < count; i++) {
        SSL *ssl = ssl_open(c);
        if (!ssl)
            break;
        SSL_do_handshake(ssl);
        c->held[c->held_count++] = ssl;
    }
    /* a connection that was still under way had not taken the ClientHello */
    for (size_t i = 0; i < c->held_count; i++)
        SSL_do_handshake(c->held[i]);
    return c->held_count;
}
