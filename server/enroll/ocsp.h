/*
 * The OCSP responder: who asks is answered from the registry. Answers without nonce are signed once
 * and kept; the registry is asked each time, so that a revocation counts at once. Threads: any.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"

struct ocsp_desk;
struct service;

/* nonces_per_s: how many answers with a nonce one source may have signed a second. */
enum err ocsp_desk_new(unsigned nonces_per_s, struct ocsp_desk **ret_desk) MUST_CHECK;
void ocsp_desk_free(struct ocsp_desk *d);

struct ocsp_answer {
    struct bytes der;      /* OCSPResponse, in the arena or constant */
    int64_t this_update_s; /* 0: may not be kept by caches */
    int64_t next_update_s;
};

/* Answers whatever was sent; refusals are answers of the protocol. Past its limit a source is
 * answered without its nonce (RFC 6960 4.4.1). */
void ocsp_ask(struct service *service, struct bytes request, const char *source,
              struct arena *arena, struct ocsp_answer *ret_answer);
