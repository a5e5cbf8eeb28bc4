/*
 * The server's TLS identity and the peer's chain. The certificate can be reloaded without a
 * restart: handshakes under way keep the one they began with. Threads: any.
 */
#pragma once

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"

/* Priority string: TLS 1.2 and 1.3, X25519 and AES-128-GCM first, no plain PSK. */
extern const char tls_priorities[];

/* The same and PSK, with an exchange of its own for every connection. */
extern const char tls_priorities_psk[];

struct tls_identity;

/* Loads PEM files: the chain, leaf first, and its key, whose mode is checked. */
enum err tls_identity_new(const char *cert_path, const char *key_path,
                          struct tls_identity **ret_identity) MUST_CHECK;
void tls_identity_free(struct tls_identity *t);

/* Loads the files again; on failure the present certificate stays. */
enum err tls_identity_reload(struct tls_identity *t) MUST_CHECK;

/* When the first certificate of the present chain ends, seconds since 1970. */
int64_t tls_identity_ends_s(struct tls_identity *t);

/* Makes t the identity that handshakes of this process use; once, before listening. */
void tls_identity_install(struct tls_identity *t);

/* libmicrohttpd's HTTPS_CERT_CALLBACK. */
int tls_identity_retrieve(gnutls_session_t session, const gnutls_datum_t *req_ca_rdn, int nreqs,
                          const gnutls_pk_algorithm_t *pk_algos, int pk_algos_length,
                          gnutls_pcert_st **pcert, unsigned int *pcert_length,
                          gnutls_privkey_t *privkey);

/* Asks the client for a certificate and names no CAs; called before the handshake. */
void tls_request_certificate(gnutls_session_t session);

/* What binds a request to this connection (RFC 7030 3.5): tls-unique on TLS 1.2, and only with
 * the extended master secret (RFC 9266 section 1); the exporter value on TLS 1.3 (RFC 9148
 * section 3). In the arena; len 0 where there is none. */
enum err tls_channel_binding(gnutls_session_t session, struct arena *arena,
                             struct bytes *ret_binding) MUST_CHECK;

/* The peer's certificates as DER in the arena, leaf first, at most max. */
enum err tls_peer_chain(gnutls_session_t session, struct arena *arena, struct bytes *ret_chain,
                        size_t max, size_t *ret_count) MUST_CHECK;
