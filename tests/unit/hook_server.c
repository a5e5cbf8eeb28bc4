#include "hook_server.h"

#include <arpa/inet.h>
#include <check.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { MAX_CONNECTIONS = 128, HEADER_BYTES = 512 };

struct peer {
    struct hook_server *server;
    pthread_t thread;
    int fd;
    SSL *ssl;
};

struct hook_server {
    const struct hook_route *routes;
    size_t count;
    int fd;
    unsigned port;
    SSL_CTX *tls;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t released;
    bool release;
    struct hook_server_seen seen;
    struct peer peers[MAX_CONNECTIONS];
};

static int peer_read(struct peer *p, char *data, size_t len)
{
    return p->ssl ? SSL_read(p->ssl, data, (int)len) : (int)recv(p->fd, data, len, 0);
}

static bool peer_write(struct peer *p, const char *data, size_t len)
{
    while (len > 0) {
        int n =
            p->ssl ? SSL_write(p->ssl, data, (int)len) : (int)send(p->fd, data, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* One request with its body; false at the end of the connection. */
static bool request_read(struct peer *p, char *text)
{
    size_t len = 0, wanted = 0;
    while (wanted == 0 || len < wanted) {
        int n = peer_read(p, text + len, HOOK_SERVER_MAX_REQUEST - 1 - len);
        if (n <= 0)
            return false;
        len += (size_t)n;
        text[len] = '\0';
        const char *end = strstr(text, "\r\n\r\n");
        const char *length = strcasestr(text, "\r\ncontent-length:");
        if (end && length)
            wanted = (size_t)(end + 4 - text) + strtoul(length + 17, NULL, 10);
    }
    return true;
}

static const struct hook_route *route_of(const struct hook_server *s, const char *text)
{
    for (size_t i = 0; i < s->count; i++) {
        size_t len = strlen(s->routes[i].path);
        if (strncmp(text, "POST ", 5) == 0 && strncmp(text + 5, s->routes[i].path, len) == 0 &&
            text[5 + len] == ' ')
            return &s->routes[i];
    }
    return NULL;
}

static void answer_wait(struct hook_server *s, const struct hook_route *r)
{
    const struct timespec delay = {r->delay_ms / 1000, r->delay_ms % 1000 * 1000000L};
    nanosleep(&delay, NULL);
    pthread_mutex_lock(&s->lock);
    while (r->held && !s->release)
        pthread_cond_wait(&s->released, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static bool answer_write(struct peer *p, const struct hook_route *r)
{
    char head[HEADER_BYTES];
    size_t len = strlen(r->body) + r->padding_bytes;
    char *body = malloc(len + 1);
    memset(body, ' ', len);
    memcpy(body, r->body, strlen(r->body));
    int n = snprintf(head, sizeof(head), "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n", r->status,
                     r->header ? r->header : "", len);
    bool sent = peer_write(p, head, (size_t)n) && peer_write(p, body, len);
    free(body);
    return sent;
}

static void requests_serve(struct peer *p, char *text)
{
    struct hook_server *s = p->server;
    while (request_read(p, text)) {
        const struct hook_route *r = route_of(s, text);
        pthread_mutex_lock(&s->lock);
        s->seen.requests++;
        strcpy(s->seen.last, text);
        pthread_mutex_unlock(&s->lock);
        if (!r || !r->status)
            return;
        answer_wait(s, r);
        if (!answer_write(p, r))
            return;
    }
}

static void *peer_run(void *arg)
{
    struct peer *p = arg;
    char *text = malloc(HOOK_SERVER_MAX_REQUEST);
    if (p->server->tls) {
        p->ssl = SSL_new(p->server->tls);
        SSL_set_fd(p->ssl, p->fd);
    }
    if (!p->ssl || SSL_accept(p->ssl) == 1)
        requests_serve(p, text);
    free(text);
    SSL_free(p->ssl);
    shutdown(p->fd, SHUT_RDWR);
    return NULL;
}

static void *accept_run(void *arg)
{
    struct hook_server *s = arg;
    int fd = -1;
    while ((fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        pthread_mutex_lock(&s->lock);
        ck_assert_uint_lt(s->seen.connections, MAX_CONNECTIONS);
        struct peer *p = &s->peers[s->seen.connections++];
        pthread_mutex_unlock(&s->lock);
        *p = (struct peer){.server = s, .fd = fd};
        ck_assert_int_eq(pthread_create(&p->thread, NULL, peer_run, p), 0);
    }
    return NULL;
}

static void extension_add(X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    ck_assert_int_eq(X509_add_ext(cert, e, -1), 1);
    X509_EXTENSION_free(e);
}

static SSL_CTX *tls_make(const char *ca_path)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)ca_path, -1, -1, 0);
    X509_set_issuer_name(cert, name);
    X509_set_pubkey(cert, key);
    extension_add(cert, NID_basic_constraints, "critical,CA:TRUE");
    extension_add(cert, NID_subject_alt_name, "IP:127.0.0.1");
    ck_assert_int_gt(X509_sign(cert, key, EVP_sha256()), 0);
    _cleanup_(fclosep) FILE *out = fopen(ca_path, "w");
    ck_assert(out && PEM_write_X509(out, cert) == 1);
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    ck_assert(tls && SSL_CTX_use_certificate(tls, cert) == 1 && SSL_CTX_use_PrivateKey(tls, key));
    X509_free(cert);
    EVP_PKEY_free(key);
    return tls;
}

struct hook_server *hook_server_start(const struct hook_route *routes, size_t count, bool tls,
                                      const char *ca_path)
{
    struct hook_server *s = calloc(1, sizeof(*s));
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(at);
    ck_assert_ptr_nonnull(s);
    s->routes = routes;
    s->count = count;
    s->tls = tls ? tls_make(ca_path) : NULL;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(s->fd, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(s->fd, MAX_CONNECTIONS), 0);
    ck_assert_int_eq(getsockname(s->fd, (struct sockaddr *)&at, &len), 0);
    s->port = ntohs(at.sin_port);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->released, NULL);
    ck_assert_int_eq(pthread_create(&s->thread, NULL, accept_run, s), 0);
    return s;
}

void hook_server_stop(struct hook_server *s)
{
    hook_server_release(s);
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    for (unsigned i = 0; i < s->seen.connections; i++) {
        shutdown(s->peers[i].fd, SHUT_RDWR);
        pthread_join(s->peers[i].thread, NULL);
        close(s->peers[i].fd);
    }
    close(s->fd);
    SSL_CTX_free(s->tls);
    pthread_cond_destroy(&s->released);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

unsigned hook_server_port(const struct hook_server *s)
{
    return s->port;
}

void hook_server_release(struct hook_server *s)
{
    pthread_mutex_lock(&s->lock);
    s->release = true;
    pthread_cond_broadcast(&s->released);
    pthread_mutex_unlock(&s->lock);
}

void hook_server_look(struct hook_server *s, struct hook_server_seen *ret_seen)
{
    pthread_mutex_lock(&s->lock);
    *ret_seen = s->seen;
    pthread_mutex_unlock(&s->lock);
}
