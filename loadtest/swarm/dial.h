/*
 * A TCP connection with TLS on it, or plain, from the client's side and without blocking: what
 * calls and sessions are made of. Who dialled closes both. Threads: the loop's own.
 */
#pragma once

#include <netinet/in.h>
#include <openssl/types.h>

#include "base/err.h"
#include "loop.h"

struct dial_target {
    struct loop *loop;
    struct sockaddr_in address;
    SSL_CTX *tls;     /* NULL: plain, and every ssl below is NULL too */
    const char *host; /* the name or address the server's certificate must have */
};

/* The address of the host, whose text is borrowed. ERR_NOT_FOUND. */
enum err dial_resolve(struct dial_target *target, const char *host, const char *port) MUST_CHECK;

/* Begins to connect, with a client certificate where one is given; both are borrowed. */
enum err dial_open(const struct dial_target *target, X509 *certificate, EVP_PKEY *key, int *ret_fd,
                   SSL **ret_ssl) MUST_CHECK;

/* Once the socket can be written to: whether it is connected. */
bool dial_connected(int fd);

/* Watches for what TLS waits for after a call of SSL that returned n; false: it waits for nothing,
 * the connection is over. */
bool dial_wait(const struct dial_target *target, struct watch *w, const SSL *ssl, int n);

/* How many bytes were read or written; 0: none now, and the connection is watched for when there
 * will be; -1: it is over. */
int dial_read(const struct dial_target *target, struct watch *w, SSL *ssl, void *data, size_t len);
int dial_write(const struct dial_target *target, struct watch *w, SSL *ssl, const void *data,
               size_t len);
