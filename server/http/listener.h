/*
 * A listener: our accept loop before libmicrohttpd with one thread per connection, over TLS or,
 * on a local socket, in clear, and the route tables it serves. Handlers simply block. Threads:
 * made, stopped and freed by main; requests run on libmicrohttpd's threads.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/gate.h"
#include "enroll/metrics.h"
#include "proto/route.h"

struct trust;

enum { LISTENER_MAX_TABLES = 10, LISTENER_MEMORY_BYTES = 16 * 1024 };

/* Who may ask anything of a listener, beside what open_table has. */
struct listener_peers {
    const struct trust *trust; /* a client certificate must lead to it; NULL: anybody may ask */
    const char *names;         /* and have one of these names; NULL: any */
    enum fault_code fault;     /* what others are told */
    const struct route_table *open; /* what others may ask; NULL: nothing */
    bool are_proxies; /* they are believed in what their headers say of the client (RFC 9440) */
};

struct listener_config {
    const char *name; /* for the log: "device", "admin", "proxy", "revocation" */
    enum metrics_listener metrics;
    const char *address; /* numeric, or unix:/path */
    bool clear;          /* HTTP without TLS; a local socket always is */
    uint16_t port;       /* 0: any free one */
    unsigned max_connections;
    unsigned max_connections_per_address; /* 0: no limit */
    unsigned idle_timeout_s;              /* also bounds the handshake */
    unsigned request_timeout_s; /* from when a request may begin to the last byte of its body */
    size_t request_arena_bytes;
    size_t memory_bytes;         /* of a connection: headers and answer must fit */
    bool psk;                    /* devices may have a PSK in place of a certificate */
    const char *balancers;       /* whose connections begin with a PROXY header; NULL: nobody's */
    struct listener_peers peers; /* borrowed */
    const struct route_table *tables[LISTENER_MAX_TABLES];
    size_t table_count;
};

struct listener;

/* Listens at once. The gate and the service are borrowed. ERR_CONFLICT: somebody listens on that
 * local socket. */
enum err listener_new(const struct listener_config *config, struct service *service,
                      struct gate *gate, struct listener **ret_listener) MUST_CHECK;

/* The port in use; 0: a local socket. */
uint16_t listener_port(const struct listener *l);

/* Stops accepting; requests under way go on, and their connections close after them. */
void listener_quiesce(struct listener *l);

/* From now on new requests, on connections that are still open, are told load.draining. */
void listener_refuse(struct listener *l);

/* Requests under way, and open connections. */
unsigned listener_active(const struct listener *l);
unsigned listener_connections(struct listener *l);

/* Ends every connection and frees. */
void listener_free(struct listener *l);
