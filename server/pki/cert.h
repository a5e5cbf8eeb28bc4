/* Reading certificates (RFC 5280). Threads: any. */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/secret.h"

enum { CERT_MAX_BYTES = 16384, CERT_MAX_CHAIN = 8, CERT_SERIAL_MAX_BYTES = 20, SHA1_BYTES = 20 };

void cert_free(X509 *x);
DEFINE_CLEANUP(X509 *, cert_free);

/* What the registry and the adapters want to know of a certificate; text in the arena. */
struct cert_info {
    uint8_t fingerprint[SHA256_BYTES]; /* of the DER: the certificateId */
    uint8_t spki_sha256[SHA256_BYTES];
    struct bytes serial_number; /* magnitude, big endian */
    struct bytes subject_der;
    struct bytes issuer_der;
    struct bytes san_der; /* GeneralNames, len 0: none */
    struct bytes aki;     /* keyIdentifier, len 0: none */
    struct bytes ski;
    const char *subject_text; /* RFC 2253, UTF-8 */
    const char *issuer_text;
    const char *cn; /* first of each; NULL: none */
    const char *subject_serial_number;
    const char *country;
    const char *organization;
    const char *organizational_unit;
    const char *state_name;
    const char *dn_qualifier;
    const char *urn; /* first SAN URI that starts with urn: */
    int64_t not_before_s;
    int64_t not_after_s;
    bool is_ca;
    bool is_registration_authority; /* id-kp-cmcRA, RFC 6402 section 2.10 */
    bool self_issued;
};

/* Seconds since 1970; 0 for a time that is none. */
int64_t cert_time_s(const ASN1_TIME *t);

/* One DER certificate, nothing behind it. The caller frees with cert_free. */
enum err cert_decode(struct bytes der, X509 **ret_cert) MUST_CHECK;

/* Every certificate of a PEM text in order, at most max; ERR_INVALID when there is none.
 * The caller frees each. */
enum err cert_parse_pem(struct bytes pem, X509 **ret_certs, size_t max,
                        size_t *ret_count) MUST_CHECK;

/* The first of them. */
enum err cert_parse_first_pem(struct bytes pem, X509 **ret_cert) MUST_CHECK;

enum err cert_describe(struct arena *arena, X509 *cert, struct cert_info *ret_info) MUST_CHECK;

/* 1 to 3, of the DER of a certificate, without decoding the rest. */
enum err cert_version(struct bytes der, int *ret_version) MUST_CHECK;

/* SHA-1 of a DER, for protocols that name certificates by it: it proves nothing. */
enum err cert_sha1(struct bytes der, uint8_t ret_digest[SHA1_BYTES]) MUST_CHECK;

/* Whether one of the names (separated by commas and blanks) is a dNSName or the first CN; letters
 * in either case, no wildcards. */
enum err cert_is_named(const struct cert_info *info, const char *names, bool *ret_named) MUST_CHECK;

/* Whether the CA's key made the signature on the certificate, over a digest that still holds: of
 * 112 bits of security, which SHA-1 has not. */
bool cert_signed_by(X509 *cert, X509 *ca);

/* key_fingerprint of the certificate's key. ERR_INVALID when it does not parse. */
enum err cert_key_fingerprint(X509 *cert, uint8_t ret_digest[SHA256_BYTES]) MUST_CHECK;

/* The issuer's Name within the DER of a certificate, borrowed, without decoding the rest. */
enum err cert_issuer_der(struct bytes der, struct bytes *ret_name) MUST_CHECK;

/* DER into the arena. */
enum err cert_encode(struct arena *arena, X509 *cert, struct bytes *ret_der) MUST_CHECK;

/* PEM text (RFC 7468) of at most CERT_MAX_BYTES into the arena; NULL when out of memory. */
char *pem_text(struct arena *arena, const char *label, struct bytes der);
char *cert_pem(struct arena *arena, struct bytes der);

/* Degenerate certs-only CMS SignedData (RFC 5272 3.1, RFC 7030 4.1.3): version 1, id-data
 * without content, no signers, the certificates in the order given. */
enum err cms_certs_only(struct arena *arena, const struct bytes *certs, size_t count,
                        struct bytes *ret_der) MUST_CHECK;
