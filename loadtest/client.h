/*
 * Many TLS connections at once from one thread: non-blocking OpenSSL over epoll. For the programs
 * of loadtest/ only. Owner: whoever called. Threads: one.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CLIENT_MAX_ANSWER_BYTES = 16384, CLIENT_MAX_REQUEST_BYTES = 4096 };

/* One request and what became of it. */
struct job {
    char *request; /* owned by the caller */
    size_t request_len;
    EVP_PKEY *key; /* an enrolment's answer must certify it; NULL: any answer of status 200 does */
    int64_t took_us;
    bool good;
    char why[96]; /* what was wrong */
};

struct client;

/* Trusts the certificates of cafile and connects to 127.0.0.1:port. NULL: cannot. */
struct client *client_new(const char *cafile, int port);
void client_free(struct client *c);

/* Does the jobs in order, each on a connection of its own, at most at_once at a time. Returns how
 * many were answered well. A connection that says nothing for a minute ends the run. */
size_t client_run(struct client *c, struct job *jobs, size_t count, size_t at_once);

/* Opens connections and leaves them alone: handshaken, or with nothing but the ClientHello sent.
 * Returns how many came about. They live as long as the client. */
size_t client_hold(struct client *c, size_t count, bool half_open);

/* Microseconds of a clock that does not jump. */
int64_t client_now_us(void);
