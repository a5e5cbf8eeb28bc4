/*
 * Who speaks on a connection, and for whom: the TLS peer's certificates, whether the listener
 * lets that peer ask, and what an authenticated proxy says of its client. Threads: the
 * connection's own.
 */
#pragma once

#include <microhttpd.h>

#include "http/connection.h"
#include "http/listener.h"

/* Refuses the headers that only a proxy may send, from everybody else. Fault:
 * proxy.header_refused. */
enum err peer_headers_check(const struct listener_peers *peers, struct exchange *x) MUST_CHECK;

/* Whether the peer may ask; judged once a connection. Then, of a proxy: the client's chain and
 * address out of its headers. Faults: the listener's own, proxy.header_malformed. */
enum err peer_admit(const struct listener_peers *peers, struct MHD_Connection *mhd,
                    struct connection *c, struct exchange *x) MUST_CHECK;

/* The TLS peer's chain or PSK identity, and the channel's binding where it is wanted, unless a
 * proxy speaks. Fault: chain.malformed. */
enum err peer_take(const struct listener_peers *peers, struct MHD_Connection *mhd,
                   bool want_binding, struct exchange *x) MUST_CHECK;
