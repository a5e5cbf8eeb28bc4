/* What the files of this folder share. */
#pragma once

#include "enroll/service.h"
#include "model/enrollment.h"
#include "pki/cert.h"
#include "proto/exchange.h"
#include "store/enrollment.h"

enum { DPS_MAX_BODY_BYTES = 96 * 1024, DPS_OPERATION_BYTES = 80 };

/* What a route is, for the shape of its refusals. */
enum dps_kind { DPS_REGISTER, DPS_POLL, DPS_LOOKUP };

/* What a registration asks, as its body says; texts are borrowed from the exchange's arena. */
struct dps_request {
    const char *csr;              /* NULL: no certificate is wanted */
    bool old_csr;                 /* it came as PEM, in the member of 2021, and is answered so */
    struct bytes endorsement_key; /* of its TPM; len 0: not said */
    struct bytes storage_root_key;
    struct bytes endorsement_chain[ENROLLMENT_MAX_CHAIN]; /* payload.ekCert, DER */
    size_t endorsement_chain_count;
    bool has_body; /* it says something that could not be guessed when it is polled */
};

/* Reads it. Faults: request.malformed. */
enum err dps_request_read(struct exchange *x, const char *registration_id, struct bytes body,
                          struct dps_request *ret_request) MUST_CHECK;

/* The id of an operation: which registration it is of, and whether the registry may have it. */
enum dps_kept { DPS_KEPT = '4', DPS_GUESSABLE = '5', DPS_LOST = '6' };
enum err dps_operation_make(const char *registration_id, enum dps_kept kept, const char *request_id,
                            char ret_id[DPS_OPERATION_BYTES]) MUST_CHECK;
/* Whether an id is one of that registration's. */
bool dps_operation_is(const char *id, const char *registration_id, enum dps_kept *ret_kept);

/* Answers with what was assigned: status 200. chain: certificates issued now, leaf first; may be
 * none. wrapped: as the status of an operation, else by itself. */
struct dps_answer {
    const char *operation; /* NULL: not wrapped */
    const struct assignment *assignment;
    const struct dps_request *request; /* NULL: a lookup */
    enum attestation by;
    const struct cert_info *leaf; /* the certificate it registered with; NULL: by other means */
    struct bytes signer;          /* the CA of its group, DER; len 0: none */
    struct bytes tpm_key;         /* len 0: none */
    const struct bytes *chain;
    size_t chain_count;
};
enum err dps_answer_send(struct exchange *x, const struct dps_answer *answer) MUST_CHECK;

/* An X509CertificateInfo as a member of the open object. info NULL: read from the DER. */
enum err dps_certificate_write(struct arena *arena, struct buf *b, const char *key,
                               struct bytes der, const struct cert_info *info) MUST_CHECK;

/* Answers that the registration has failed for good, with the code that SDKs look for. */
enum err dps_failure_send(struct exchange *x, const char *operation, int code) MUST_CHECK;

/* Answers with what a TPM is to take a key out of: 401, and none of the members that SDKs take for
 * a registration. */
enum err dps_challenge_send(struct exchange *x, struct bytes challenge) MUST_CHECK;

/* Refusals in the shapes of DPS: its error body, or for what may still come 202 with Retry-After.
 */
void dps_problem(struct exchange *x, enum fault_code seen);

/* Time of day as DPS writes it. NULL: out of memory. */
const char *dps_time(struct arena *arena, int64_t wall_s);
