/*
 * PKCS#10 requests (RFC 2986) in every wrapping that EST clients send. Threads: any.
 */
#pragma once

#include <openssl/types.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/secret.h"
#include "model/fault.h"
#include "model/profile.h"

enum { CSR_MAX_BYTES = 16384 /* decoded DER */ };

/* A decoded request whose signature was checked. */
struct csr {
    struct X509_req_st *request; /* subject, attributes, key; maybe unsigned; owned */
    enum key_kind kind;          /* 0 when Muster issues for no such key */
    uint8_t spki_sha256[SHA256_BYTES];
    struct bytes subject_der; /* the Name, in the arena */
    struct bytes san_der;     /* the GeneralNames value of the SAN requested; len 0: none */
    const char *cn;           /* first CN as UTF-8, NULL: none */
    const char *serial_number;
    const char *challenge; /* challengePassword or est-identity-linking, NULL: none */
    const char *urn;       /* first SAN URI that starts with urn:, NULL: none */
};

/*
 * Unwraps an EST or JSON body into DER: base64 with or without line breaks (RFC 8951 3.1),
 * PEM armour ("CERTIFICATE REQUEST" and "NEW CERTIFICATE REQUEST"), or raw DER.
 * ERR_INVALID when it is none of them or longer than CSR_MAX_BYTES.
 */
enum err csr_unwrap(struct arena *arena, struct bytes body, struct bytes *ret_der) MUST_CHECK;

/*
 * Decodes DER and verifies the proof of possession (RFC 2986 section 3). Text parts go into
 * the arena. No byte may follow the request. Text attributes with a NUL or control characters
 * are csr.malformed. MD5 and SHA-1 signatures are csr.signature_invalid.
 * Faults: csr.malformed, csr.signature_invalid.
 */
enum err csr_decode(struct arena *arena, struct bytes der, struct csr *ret_csr,
                    struct fault *fault) MUST_CHECK;

/* The same without proof of possession, for a request whose key will be made here: only the kind
 * of its key matters (RFC 7030 4.4.1). spki_sha256 is not filled. */
enum err csr_decode_unproven(struct arena *arena, struct bytes der, struct csr *ret_csr,
                             struct fault *fault) MUST_CHECK;
void csr_done(struct csr *c);
