/*
 * Who has an issuing key: a small vtable, so that a key in a file and one behind PKCS#11 are used
 * alike. A signer is immutable once made and its key may sign from many threads; its maker frees
 * it.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>

#include "base/cleanup.h"
#include "base/err.h"

struct signer;

struct signer_ops {
    /* The key to hand to OpenSSL for signing; borrowed from the signer. */
    EVP_PKEY *(*key_get)(const struct signer *s);
    void (*free)(struct signer *s);
    /* The key did not sign. NULL: there is nothing to be done about it. */
    void (*failed)(const struct signer *s);
};

struct signer {
    const struct signer_ops *ops;
};

void signer_free(struct signer *s);
DEFINE_CLEANUP(struct signer *, signer_free);

/* Where references lead; borrowed. */
struct signer_source {
    const char *folder;     /* of key files */
    const char *passphrase; /* of encrypted ones; NULL: none is known */
};

/* Whether a reference is the URI of a key behind PKCS#11 (RFC 7512), not the name of a file. */
bool signer_is_pkcs11(const char *reference);

/* The key of a reference. A PEM file's mode is checked (key_load_private). ERR_UNAVAILABLE: the
 * token does not have the key now, or is away; asking again may help. */
enum err signer_open(const struct signer_source *source, const char *reference,
                     struct signer **ret_signer) MUST_CHECK;

/* For signer.c. */
enum err signer_file_new(const char *path, const char *passphrase,
                         struct signer **ret_signer) MUST_CHECK;
enum err signer_pkcs11_new(const char *uri, struct signer **ret_signer) MUST_CHECK;

/* Loads a PKCS#11 module through OpenSSL's engine "pkcs11", for the life of the process: once,
 * before any signer_open, with the token's PIN. ERR_NOT_FOUND: the engine is not installed, or the
 * module cannot be loaded. A token that is away is not noticed yet. */
enum err signer_pkcs11_begin(const char *module, const char *pin) MUST_CHECK;
