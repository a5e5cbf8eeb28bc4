/*
 * RFC 9440: the client's certificates in the headers of a proxy that ended TLS, and the client's
 * address beside them. Pure; whether the proxy is believed is the caller's to know. Threads: any.
 */
#pragma once

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "model/fault.h"

struct exchange;

enum { CLIENT_CERT_MAX = 8, CLIENT_CERT_MAX_BYTES = 16 * 1024 };

extern const char client_cert_header[];
extern const char client_cert_chain_header[];
extern const char client_cert_address_header[]; /* X-Forwarded-For */

/*
 * The fields' values, NULL: absent. cert is one byte sequence of a structured field (RFC 8941
 * 3.3.5), chain a list of them without the leaf. Base64 is strict (padded, no blanks), parameters
 * are refused. At most max certificates, each up to CLIENT_CERT_MAX_BYTES, leaf first in
 * ret_chain, in the arena; no field: none. Fault: proxy.header_malformed.
 */
enum err client_cert_parse(struct arena *arena, const char *cert, const char *chain,
                           struct bytes *ret_chain, size_t max, size_t *ret_count,
                           struct fault *fault) MUST_CHECK;

/* The last element of X-Forwarded-For, which the nearest proxy wrote; "" when there is none, NULL
 * when out of memory. Not yet checked to be an address. */
const char *client_cert_address(struct arena *arena, const char *forwarded_for);

/* None of the three fields may come twice: which of two would count? Fault:
 * proxy.header_malformed. */
enum err client_cert_once(struct exchange *x) MUST_CHECK;
