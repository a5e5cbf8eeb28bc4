/*
 * SCEP messages (RFC 8894 section 3): what a client signed and enveloped for the registration
 * authority (RA), and the answers. An RA is immutable once made and works for many threads; its
 * maker frees it. Threads: any.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/secret.h"
#include "model/fault.h"
#include "pki/cert.h"
#include "pki/signer.h"

enum {
    SCEP_MAX_MESSAGE_BYTES = 32 * 1024,
    SCEP_MAX_TRANSACTION_CHARS = 128,
    SCEP_MAX_NONCE_BYTES = 64
};

struct scep_ra;

/* Takes the signer over on success. ERR_INVALID: the key is not the certificate's, or no RSA key of
 * 2048 to 4096 bits (section 3.5.2: what is enveloped is for an RSA key). */
enum err scep_ra_new(X509 *cert, struct signer *signer, struct scep_ra **ret_ra) MUST_CHECK;
void scep_ra_free(struct scep_ra *ra);
DEFINE_CLEANUP(struct scep_ra *, scep_ra_free);

/* DER of its certificate, borrowed; when that ends, seconds since 1970; the Name of who signed it.
 */
struct bytes scep_ra_certificate(const struct scep_ra *ra);
int64_t scep_ra_not_after_s(const struct scep_ra *ra);
struct bytes scep_ra_issuer(const struct scep_ra *ra);

/* What old clients need and nobody else should have. */
struct scep_options {
    bool des3;
    bool sha1;
};

/* messageType, section 3.2.1.2. */
enum scep_type {
    SCEP_CERT_REP = 3,
    SCEP_RENEWAL_REQ = 17,
    SCEP_PKCS_REQ = 19,
    SCEP_CERT_POLL = 20,
    SCEP_GET_CERT = 21,
    SCEP_GET_CRL = 22
};

/* A message whose signature holds; in the arena. */
struct scep_message {
    int type; /* as sent: perhaps none of them */
    const char *transaction;
    struct bytes nonce;                 /* the sender's */
    struct bytes certs[CERT_MAX_CHAIN]; /* the signer's first */
    size_t cert_count;
    uint8_t signer_spki[SHA256_BYTES];
    bool self_signed;     /* the signer's certificate proves nothing but its key */
    int digest;           /* NIDs, for the answer */
    int cipher;           /* of the envelope; 0 before it was opened */
    struct bytes content; /* the envelope */
};

/* Reads the outer part and verifies the signer's signature; nothing is said of the signer's
 * certificate. Faults: scep.malformed; scep.algorithm, with which ret_message is filled. */
enum err scep_read(struct arena *arena, struct bytes der, const struct scep_options *options,
                   struct scep_message *ret_message, struct fault *fault) MUST_CHECK;

/* Opens the envelope. Whatever is wrong with the key in it or what it holds is one fault,
 * scep.message_check, without a reason (PKCS #1 v1.5 is an oracle to whoever learns more);
 * scep.algorithm: another cipher. */
enum err scep_open(const struct scep_ra *ra, struct arena *arena,
                   const struct scep_options *options, struct scep_message *message,
                   struct bytes *ret_content, struct fault *fault) MUST_CHECK;

/* IssuerAndSerialNumber (RFC 5652 10.2.4); of CertPoll IssuerAndSubject (section 3.3.3). The second
 * is ERR_INVALID also where subject differs from none of the signer's. */
enum err scep_issuer_and_serial(struct arena *arena, struct bytes der, struct bytes *ret_issuer,
                                struct bytes *ret_serial) MUST_CHECK;
bool scep_is_issuer_and_subject(struct bytes der);

enum scep_status { SCEP_SUCCESS = 0, SCEP_FAILURE = 2, SCEP_PENDING = 3 };
enum scep_fail { SCEP_BAD_ALG, SCEP_BAD_CHECK, SCEP_BAD_REQUEST, SCEP_BAD_TIME, SCEP_BAD_CERT_ID };

/* CertRep (section 3.3.2). content: of SUCCESS, certs-only CMS, which is enveloped for the signer.
 */
struct scep_reply {
    const struct scep_message *message;
    enum scep_status status;
    enum scep_fail fail;   /* of FAILURE */
    const char *fail_text; /* of FAILURE; UTF-8 */
    struct bytes content;
};
enum err scep_write(const struct scep_ra *ra, struct arena *arena, const struct scep_reply *reply,
                    struct bytes *ret_der) MUST_CHECK;

/* A CRL alone, as what answers GetCRL holds (section 3.4). */
enum err scep_crl_only(struct arena *arena, struct bytes crl, struct bytes *ret_der) MUST_CHECK;

/* Certificates that are next, signed by the RA (section 4.7.1). */
enum err scep_signed_certs(const struct scep_ra *ra, struct arena *arena, struct bytes certs_only,
                           struct bytes *ret_der) MUST_CHECK;
