/*
 * What a device says by SCEP and what it is told (RFC 8894): a PKCSReq, enveloped for the
 * registration authority and signed with the key that is to be certified, and the CertRep to it.
 * Threads: any.
 */
#pragma once

#include <openssl/types.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/secret.h"

enum {
    SCEP_NONCE_BYTES = 16,
    SCEP_TRANSACTION_BYTES = 2 * SHA256_BYTES + 1,
    SCEP_REASON_BYTES = 64,
};

/* A request whose answer is due; its registration authority and key are borrowed. */
struct scep_request {
    X509 *ra;
    EVP_PKEY *key; /* RSA */
    X509 *self;    /* self-signed: what the answer is enveloped for */
    uint8_t nonce[SCEP_NONCE_BYTES];
    char transaction[SCEP_TRANSACTION_BYTES];
};

enum scep_end { SCEP_ISSUED, SCEP_REFUSED, SCEP_WAITS };

struct scep_answer {
    enum scep_end end;
    X509 *certificate;              /* issued: the caller frees */
    char reason[SCEP_REASON_BYTES]; /* refused: the fault's code */
};

/* Makes a request of a device and appends its message; rq has ra and key, and is zero else or of a
 * try before. A key has one transaction, so that the same is asked for again. */
enum err scep_request_write(struct scep_request *rq, const char *serial, const char *challenge,
                            struct buf *b) MUST_CHECK;
void scep_request_done(struct scep_request *rq);

/* Reads what was answered. Returns why it is no answer to that, NULL: it is one. */
const char *scep_answer_read(const struct scep_request *rq, struct bytes der,
                             struct scep_answer *ret_answer);
