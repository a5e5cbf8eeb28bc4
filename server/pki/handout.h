/*
 * What a device is handed with a key that was made for it: the request its certificate is asked for
 * by, and key and certificates in one file under a passphrase. Threads: any.
 */
#pragma once

#include <openssl/types.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"

/* A PKCS#10 request (RFC 2986) with nothing but a CN, DER in the arena. */
enum err handout_request(EVP_PKEY *key, const char *cn, struct arena *arena,
                         struct bytes *ret_der) MUST_CHECK;

/* PKCS#12 (RFC 7292) with the key and its certificate under AES-256 and PBKDF2, the certificates of
 * chain_pem beside them. ret is initialised by the caller and secret. */
enum err handout_pkcs12(EVP_PKEY *key, struct bytes cert_der, const char *chain_pem,
                        const char *name, const char *passphrase, struct buf *ret) MUST_CHECK;

/* The same in PEM: certificate, chain, and the key as encrypted PKCS#8 (key_encode_private). */
enum err handout_pem(EVP_PKEY *key, struct bytes cert_der, const char *chain_pem,
                     const char *passphrase, struct buf *ret) MUST_CHECK;
