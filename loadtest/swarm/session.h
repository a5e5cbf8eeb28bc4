/*
 * One connection to an MQTT broker, over TLS with a client certificate and without blocking. The
 * owner embeds a session, fills what is asked, opens it, and is told of every packet, or once of
 * its end. Threads: the loop's own.
 */
#pragma once

#include "base/buf.h"
#include "dial.h"
#include "mqtt.h"

enum { SESSION_TIMEOUT_US = 15 * 1000000 };

/* How far it came. */
enum session_stage { SESSION_CONNECT, SESSION_HANDSHAKE, SESSION_OPEN };

enum session_end { SESSION_CLOSED, SESSION_SILENT, SESSION_BROKEN };

struct session {
    /* asked */
    const struct dial_target *target;
    X509 *certificate; /* borrowed, as is its key */
    EVP_PKEY *key;
    const char *client_id;
    void (*came)(struct session *s, const struct mqtt_packet *p); /* CONNACK first */
    void (*ended)(struct session *s, enum session_end end);       /* it is closed already */
    void *owner;

    /* answered */
    enum session_stage stage;
    int64_t began_us;
    int64_t handshaken_us; /* 0: it did not come so far */

    /* its own */
    struct watch watch;
    struct timer timer;
    SSL *ssl;
    struct buf out;
    size_t sent;
    struct buf in;
    bool *closed; /* to be told to whoever is reading from it; NULL: nobody is */
};

/* Begins, with CONNECT as the first packet; nothing is called from here. */
enum err session_open(struct session *s) MUST_CHECK;

/* Sends what the owner has added to `out` with mqtt_*, and gives the broker its time anew. From
 * came only. */
void session_send(struct session *s);

/* Says DISCONNECT where it can, and closes. Also one that is closed already, or was never opened
 * but is all zero. */
void session_close(struct session *s);

/* Ends it without a word. */
void session_abandon(struct session *s);
