/*
 * Signing certificates: an issuer is a CA certificate with its signer.
 * An issuer is immutable once made and may sign from many threads; its maker frees it.
 */
#pragma once

#include <openssl/types.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "model/fault.h"
#include "model/profile.h"
#include "pki/cert.h"
#include "pki/csr.h"
#include "pki/key.h"
#include "pki/signer.h"

enum { ISSUER_SERIAL_BYTES = 20 /* 159 random bits, positive (RFC 5280 4.1.2.2) */ };

struct issuer;

/* Takes the signer over on success. ERR_INVALID when the certificate is no CA, or its key is not
 * the signer's. id is the registry's id of the CA. */
enum err issuer_new(int64_t id, const char *name, struct bytes cert_der, struct signer *signer,
                    struct issuer **ret_issuer) MUST_CHECK;
void issuer_free(struct issuer *i);
DEFINE_CLEANUP(struct issuer *, issuer_free);

int64_t issuer_id(const struct issuer *i);
const char *issuer_name(const struct issuer *i);
int64_t issuer_not_after_s(const struct issuer *i);

/* How addresses name it: half of its key's fingerprint, hexadecimal. Its certificate may change. */
const char *issuer_slug(const struct issuer *i);

/* Says that its key did not sign: where it is behind PKCS#11 it is opened anew by the next
 * signer_open that finds nobody using it. */
void issuer_failed(const struct issuer *i);

/* Certificate and key, borrowed; for pki/ only. */
X509 *issuer_certificate(const struct issuer *i);
EVP_PKEY *issuer_key(const struct issuer *i);

/* A certificate as signed: everything the registry records. */
struct issued {
    struct bytes der; /* in the arena */
    uint8_t fingerprint[SHA256_BYTES];
    uint8_t serial_number[ISSUER_SERIAL_BYTES];
    int64_t not_before_s;
    int64_t not_after_s;
};

/*
 * Signs a certificate for the CSR's key after the profile: version 3, random serial number,
 * AKI, SKI (RFC 5280 4.2.1.2 method 1), critical basicConstraints CA:FALSE, critical keyUsage
 * (digitalSignature; RSA also keyEncipherment), EKU, SAN, CRL distribution points, AIA.
 * notAfter never exceeds the issuer's. When subject_der or san_der are given (a renewal) they
 * are copied byte for byte and the profile's subject and SAN are not used; a SAN is critical
 * when the subject is empty. Signature digest: SHA-256 for P-256 and RSA, SHA-384 for P-384.
 */
enum err issuer_sign(const struct issuer *i, const struct csr *csr,
                     const struct cert_profile *profile, struct bytes subject_der,
                     struct bytes san_der, int64_t now_s, struct arena *arena,
                     struct issued *ret_issued) MUST_CHECK;

/* The two routes of issuer_sign: by hand for P-256 and P-384 (ERR_NOT_FOUND for an order it does
 * not cover), with OpenSSL's X509 for everything. Both sign the same bytes. */
enum issuer_route { ISSUER_ROUTE_SHORT, ISSUER_ROUTE_GENERIC };

/* A certificate with nothing left to chance; all borrowed. */
struct issuer_order {
    const struct csr *csr;
    const struct cert_profile *profile;
    struct bytes subject_der; /* as in issuer_sign */
    struct bytes san_der;
    uint8_t serial_number[ISSUER_SERIAL_BYTES];
    int64_t not_before_s;
    int64_t not_after_s;
};

/* Signs by one route, DER into the arena; for pki/ and its tests. */
enum err issuer_sign_by(const struct issuer *i, enum issuer_route route,
                        const struct issuer_order *order, struct arena *arena,
                        struct bytes *ret_der) MUST_CHECK;
