/*
 * The connections of a listener, from accept to close: whose they are, how far they came, since
 * when a request is awaited. libmicrohttpd knows them by their socket until it has begun with
 * them. Threads: any; what is in a struct connection as each member says.
 */
#pragma once

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "http/address.h"
#include "http/handshake.h"
#include "model/fault.h"

enum connection_peer { PEER_UNKNOWN, PEER_PROVEN, PEER_REFUSED };

struct connection {
    int fd;
    char source[ADDRESS_TEXT_BYTES]; /* of the client; behind a balancer what that says */
    int64_t accepted_us;
    atomic_int_fast64_t awaited_us; /* since when a request is awaited; 0: one is worked on */
    bool begun;                     /* libmicrohttpd has it; guarded by the table's lock */
    bool asked; /* a request came; set by the connection's thread, through connection_ask */
    struct handshake handshake;
    enum connection_peer peer; /* whether who speaks may; the connection's thread */
    struct fault peer_fault;   /* PEER_REFUSED: why */
};

struct connections {
    pthread_mutex_t lock; /* guards the rest */
    struct connection **by_fd;
    size_t slots;
    unsigned count;
    atomic_uint *coming; /* connections of all listeners that have not asked for anything yet */
};

void connections_init(struct connections *t, atomic_uint *coming);
void connections_done(struct connections *t);
unsigned connections_count(struct connections *t);

/* Before the socket goes to libmicrohttpd. ERR_UNAVAILABLE when there are `most` already. */
enum err connections_add(struct connections *t, int fd, const struct sockaddr_storage *source,
                         int64_t accepted_us, unsigned most) MUST_CHECK;

/* libmicrohttpd begins with it; NULL when it is not in the table. */
struct connection *connections_begin(struct connections *t, int fd);

/* Forgets it, before its socket is closed. */
void connections_remove(struct connections *t, int fd);

/* Ends those whose request has been awaited since before since_us. */
void connections_expire(struct connections *t, int64_t since_us);

/* Its first request has come. */
void connection_ask(struct connections *t, struct connection *c);

/* A request is there in whole and will be worked on; false: its time was over already. */
bool connection_work(struct connection *c);

/* The answer is out: the next request is awaited. */
void connection_await(struct connection *c, int64_t now_us);
