/*
 * A listener: libmicrohttpd with one thread per connection over TLS, and the route tables it
 * serves. Handlers simply block. Threads: made, stopped and freed by main; requests run on
 * libmicrohttpd's threads.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/gate.h"
#include "enroll/metrics.h"
#include "proto/route.h"

enum { LISTENER_MAX_TABLES = 6 };

struct listener_config {
    const char *name; /* for the log: "device", "admin" */
    enum metrics_listener metrics;
    const char *address;
    uint16_t port; /* 0: any free one */
    unsigned max_connections;
    unsigned max_connections_per_address; /* 0: no limit */
    unsigned idle_timeout_s;              /* also bounds the handshake and a slow sender */
    size_t request_arena_bytes;
    const struct route_table *tables[LISTENER_MAX_TABLES];
    size_t table_count;
};

struct listener;

/* Listens at once. The gate and the service are borrowed. */
enum err listener_new(const struct listener_config *config, struct service *service,
                      struct gate *gate, struct listener **ret_listener) MUST_CHECK;

/* The port in use. */
uint16_t listener_port(const struct listener *l);

/* Stops accepting; requests under way go on, and their connections close after them. */
void listener_quiesce(struct listener *l);

/* From now on new requests, on connections that are still open, are told load.draining. */
void listener_refuse(struct listener *l);

/* Requests under way, and open connections. */
unsigned listener_active(const struct listener *l);
unsigned listener_connections(const struct listener *l);

/* Ends every connection and frees. */
void listener_free(struct listener *l);
