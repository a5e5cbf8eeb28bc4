/*
 * How far a TLS handshake came, for the connections that end without a request: libmicrohttpd
 * frees the session before it says that a connection is closed, so what happens is written down
 * while it happens. Threads: the connection's own; anybody once that has ended.
 */
#pragma once

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/secret.h"

struct psk_door;

enum { HANDSHAKE_IDENTITY_BYTES = 129 }; /* GnuTLS takes none that is longer than 128 */

struct handshake {
    gnutls_session_t session;
    int fd;
    size_t received;   /* bytes, up to where the handshake ended */
    uint8_t first[4];  /* of them */
    uint8_t record[5]; /* header of the record that comes in, as far as it is there */
    size_t record_have;
    size_t record_left; /* of its content */
    uint16_t offered; /* the highest version of the ClientHello, 0x0303 is TLS 1.2; 0: none came */
    int last;         /* the last handshake message, either way; -1: none */
    int alert;        /* that the client sent (RFC 8446 6); 0: none */
    bool finished;    /* the client's Finished came */
    const struct psk_door *door;             /* PSK is offered; NULL: it is not */
    char identity[HANDSHAKE_IDENTITY_BYTES]; /* by which the client asked for a PSK; "": it did not
                                              */
    uint8_t key_digest[SHA256_BYTES];        /* of the key that it was given */
    const char *psk_fault; /* why no key can be that identity's; NULL: nothing is known */
};

/* That of a session that is watched. */
struct handshake *handshake_of(gnutls_session_t session);

/* The client named a PSK; why as psk_derive says it. */
void handshake_by_psk(struct handshake *h, struct bytes identity, const char *why);

/* Watches the session from now on; h must outlive it. */
void handshake_watch(struct handshake *h, gnutls_session_t session, int fd);

/* The library says that something failed on this thread: takes down the alert, if that was it. */
void handshake_trouble(void);

/* Why there is no request, in words that help. */
const char *handshake_reason(const struct handshake *h);

/* Adds what is known to a log record. */
void handshake_describe(const struct handshake *h, struct buf *record);

/* The highest version a ClientHello (RFC 8446 4.1.2, without its header) offers; 0: malformed. */
uint16_t handshake_offered(struct bytes client_hello);
