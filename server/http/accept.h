/*
 * The accept loop of a listener: one thread that accepts, reads the PROXY header of balancers,
 * hands sockets over, and ends connections whose request takes too long. It waits for the header
 * without blocking anybody. Threads: made, quiesced and freed by the listener's owner.
 */
#pragma once

#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"
#include "http/address.h"

enum {
    ACCEPT_MAX_PENDING = 256, /* sockets whose PROXY header is awaited */
    ACCEPT_HEADER_TIMEOUT_S = 5,
};

/* What the loop tells its owner; called on its thread. */
struct accept_events {
    /* Takes the socket. source is the client's address, of the header where there is one. */
    void (*ready)(void *owner, int fd, const struct sockaddr_storage *source, int64_t accepted_us);
    /* The balancer at `source` sent no valid header; the socket is closed. */
    void (*lost)(void *owner, const struct sockaddr_storage *source, const char *why,
                 int64_t accepted_us);
    /* About once a second while `busy` says so. */
    void (*tick)(void *owner, int64_t now_us);
    bool (*busy)(void *owner);
};

struct acceptor;

/* Takes the listening socket and starts the thread. balancers is borrowed. */
enum err accept_new(int listen_fd, const struct address_list *balancers,
                    const struct accept_events *events, void *owner,
                    struct acceptor **ret_acceptor) MUST_CHECK;

/* Sockets whose header is awaited. */
unsigned accept_pending(const struct acceptor *a);

/* Closes the listening socket, and has closed it on return; ticks go on. */
void accept_quiesce(struct acceptor *a);

/* Ends the thread and closes what it has. */
void accept_free(struct acceptor *a);
