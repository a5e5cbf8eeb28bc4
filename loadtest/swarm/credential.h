/*
 * What a device makes and checks: requests, and the certificates it gets for them. Threads: any.
 */
#pragma once

#include <openssl/x509.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/secret.h"

/* A PKCS#10 request for the key in base64 without line breaks, signed with SHA-256; ret is
 * initialised by the caller. subject NULL: CN=serial. */
enum err credential_request(EVP_PKEY *key, const char *serial, const X509_NAME *subject,
                            struct buf *ret) MUST_CHECK;

/* The same in DER, with a challengePassword (RFC 2985 section 5.4.1). */
enum err credential_request_challenge(EVP_PKEY *key, const char *serial, const char *challenge,
                                      struct buf *ret) MUST_CHECK;

/* The first in PEM. */
enum err credential_request_pem(EVP_PKEY *key, const char *serial, struct buf *ret) MUST_CHECK;

/* Why a certificate is not what was asked for; NULL: it is. trust holds the roots, between the
 * CAs below them. serial NULL: it names none. A device that does not know the time cannot judge
 * validity. */
const char *credential_check(X509 *x, EVP_PKEY *key, const char *serial, X509_STORE *trust,
                             STACK_OF(X509) * between, bool knows_time);

/* Why a certificate does not chain to the roots; NULL: it does. */
const char *credential_distrust(X509 *x, X509_STORE *trust, STACK_OF(X509) * between,
                                bool knows_time);

/* The only certificate in PEM; NULL: it is none. The caller frees. */
X509 *credential_cert_pem(struct bytes pem);

/* The only certificate in base64 of DER, likewise. */
X509 *credential_cert_base64(struct bytes text);

/* The certificates in a certs-only CMS in base64, in order, at most max; the caller frees each.
 * Returns how many, 0 when it does not parse. */
size_t credential_certs(struct bytes answer, X509 **ret_certs, size_t max);

/* The same, in DER. */
size_t credential_certs_der(struct bytes der, X509 **ret_certs, size_t max);

enum err credential_fingerprint(X509 *x, uint8_t ret[SHA256_BYTES]) MUST_CHECK;

/* A CA of our own and a device certificate below it, with the serial in CN; the caller frees. */
X509 *credential_authority(EVP_PKEY *key, const char *name);
X509 *credential_factory(EVP_PKEY *key, const char *serial, X509 *ca, EVP_PKEY *ca_key);

/* A self-signed client certificate that no server knows; the caller frees. */
X509 *credential_stranger(EVP_PKEY *key, const char *serial);
