/* Making CA and server certificates: for musterd init only. Threads: any. */
#pragma once

#include <openssl/types.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "pki/key.h"

struct issuer;

struct ca_request {
    const char *common_name;
    const char *organization; /* NULL: none */
    int64_t validity_s;
    int path_len; /* pathLenConstraint; -1: none */
    int64_t now_s;
};

/* A self-signed root (RFC 5280 profile: critical CA:TRUE, critical keyCertSign and cRLSign,
 * SKI). DER in the arena. */
enum err ca_make_root(EVP_PKEY *key, const struct ca_request *rq, struct arena *arena,
                      struct bytes *ret_der) MUST_CHECK;

/* A CA below another; never outlives it. */
enum err ca_make_issuing(EVP_PKEY *key, const struct ca_request *rq, struct bytes parent_der,
                         EVP_PKEY *parent_key, struct arena *arena,
                         struct bytes *ret_der) MUST_CHECK;

/* The CA certificate subject_der over again, signed by another CA and ending with the earlier of
 * the two: same name, same key (RFC 4210 4.4). */
enum err ca_make_cross(struct bytes subject_der, struct bytes parent_der, EVP_PKEY *parent_key,
                       int64_t now_s, struct arena *arena, struct bytes *ret_der) MUST_CHECK;

/* A request for the certificate of a CA: its name, the extensions of a CA, signed by its key
 * (RFC 2986). PEM in the arena. */
enum err ca_make_request(EVP_PKEY *key, const struct ca_request *rq, struct arena *arena,
                         const char **ret_pem) MUST_CHECK;

/* The certificate of a registration authority of SCEP, for an RSA key: signs and deciphers, and is
 * told from a device's by id-kp-cmcRA alone (RFC 6402 2.10). Never outlives the issuer. */
enum err ca_make_ra(EVP_PKEY *key, const struct ca_request *rq, const struct issuer *issuer,
                    struct arena *arena, struct bytes *ret_der) MUST_CHECK;

/* A TLS server certificate. names: DNS names or IP addresses, at least one. */
enum err ca_make_server(EVP_PKEY *key, const char *const *names, size_t name_count,
                        int64_t validity_s, int64_t now_s, struct bytes parent_der,
                        EVP_PKEY *parent_key, struct arena *arena,
                        struct bytes *ret_der) MUST_CHECK;
