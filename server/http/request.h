/*
 * One HTTP request inside libmicrohttpd: headers and body into an exchange, through the gate
 * into the route, the reply back, one log record. For listener.c.
 */
#pragma once

#include <microhttpd.h>
#include <stdatomic.h>

#include "http/connection.h"
#include "http/listener.h"

struct acceptor;
struct source_limit;

struct listener {
    struct listener_config config;
    struct service *service;
    struct gate *gate;
    struct MHD_Daemon *daemon;
    struct acceptor *acceptor;
    struct address_list balancers;
    struct psk_door *door; /* NULL: PSK is never offered here */
    struct connections connections;
    struct source_limit *log_limit; /* connections without a request that are written down */
    uint16_t port;
    atomic_uint active;
    atomic_bool quiesced;
    atomic_bool refusing;
};

/* libmicrohttpd's access handler and completion callback. */
enum MHD_Result request_access(void *cls, struct MHD_Connection *connection, const char *url,
                               const char *method, const char *version, const char *upload_data,
                               size_t *upload_data_size, void **con_cls);
void request_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                       enum MHD_RequestTerminationCode toe);
