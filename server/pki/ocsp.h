/*
 * OCSP (RFC 6960, RFC 8954): requests to plain data, and responses signed by a delegated responder
 * (4.2.2.2), whose certificate is made here by the issuing CA. Threads: any; a responder is
 * immutable once made.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "model/revocation.h"
#include "pki/issuer.h"

enum { OCSP_MAX_REQUEST_BYTES = 4096, OCSP_MAX_ASKED = 8, OCSP_MAX_NONCE_BYTES = 32 };

/* One certificate that is asked for; all of the arena. */
struct ocsp_asked {
    struct bytes id;            /* CertID, DER: what the answer repeats */
    struct bytes serial_number; /* magnitude, big endian */
};

struct ocsp_request {
    struct ocsp_asked asked[OCSP_MAX_ASKED];
    size_t count;
    struct bytes nonce; /* len 0: none */
};

/* ERR_INVALID: no request, a signed one that is broken, none or too many asked for, a serial number
 * that no certificate has, a nonce that is empty or too long (RFC 8954 2.1). */
enum err ocsp_request_parse(struct bytes der, struct arena *arena,
                            struct ocsp_request *ret_request) MUST_CHECK;

/* Whether the certificate asked for is one of this issuer, by the digest the client chose: SHA-1 or
 * SHA-256. */
bool ocsp_asks_for(const struct ocsp_asked *asked, const struct issuer *issuer);

struct ocsp_responder;

/* A new key and a certificate for it with id-kp-OCSPSigning and id-pkix-ocsp-nocheck, for life_s or
 * until the issuer ends. The issuer is not kept. */
enum err ocsp_responder_new(const struct issuer *issuer, int64_t now_s, int64_t life_s,
                            struct ocsp_responder **ret_responder) MUST_CHECK;
void ocsp_responder_free(struct ocsp_responder *r);
DEFINE_CLEANUP(struct ocsp_responder *, ocsp_responder_free);

int64_t ocsp_responder_not_after_s(const struct ocsp_responder *r);

/* OCSPResponse "successful", DER in the arena: a status for each that was asked. */
enum err ocsp_respond(const struct ocsp_responder *r, const struct ocsp_request *request,
                      const struct ocsp_status *statuses, int64_t now_s, int64_t next_update_s,
                      struct arena *arena, struct bytes *ret_der) MUST_CHECK;

/* OCSPResponseStatus of answers without a body (RFC 6960 4.2.1). */
enum ocsp_failure {
    OCSP_MALFORMED = 1,
    OCSP_INTERNAL = 2,
    OCSP_TRY_LATER = 3,
    OCSP_UNAUTHORIZED = 6
};

/* Constant bytes. */
struct bytes ocsp_failed(enum ocsp_failure failure);
