/*
 * TLS-PSK beside X.509 on one listener: which sessions are offered it, which key a client's
 * identity has, and who it was. Forward-secret exchanges only. Threads: made, and freed when no
 * connection is left, by the listener; the rest any.
 */
#pragma once

#include <gnutls/gnutls.h>

#include "base/arena.h"
#include "base/err.h"

struct catalog;
struct handshake;
struct psk_door;

/* catalog is borrowed. */
enum err psk_door_new(struct catalog *catalog, struct psk_door **ret_door) MUST_CHECK;
void psk_door_free(struct psk_door *d);

/* Before the handshake: offers PSK where there are groups, and changes nothing where there are
 * none. h is watched already and outlives the session. */
void psk_door_offer(const struct psk_door *d, gnutls_session_t session, struct handshake *h);

/* The identity whose key the session was made with, in the arena; NULL: a certificate authenticated
 * it, or the identity has another key by now. */
enum err psk_peer(gnutls_session_t session, struct arena *arena,
                  const char **ret_identity) MUST_CHECK;
