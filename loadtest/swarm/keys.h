/*
 * P-256 or RSA-2048 keys made ahead and kept in a file, so that a run does not measure its own key
 * making; those of RSA beside the others, with ".rsa" behind the file's name. Whoever loaded the
 * keys frees them. Threads: any, for reading.
 */
#pragma once

#include <openssl/types.h>
#include <stddef.h>

#include "base/err.h"

struct keys;

enum keys_kind { KEYS_EC, KEYS_RSA };

/* Takes `count` keys out of the file and makes those that it lacks: a registry knows a key it has
 * seen for ever, so that no key is taken twice. */
enum err keys_take(const char *path, enum keys_kind kind, size_t count,
                   struct keys **ret_keys) MUST_CHECK;

/* Makes keys until the file has `count` (mode 0600). */
enum err keys_make(const char *path, enum keys_kind kind, size_t count) MUST_CHECK;
void keys_free(struct keys *k);

size_t keys_count(const struct keys *k);

/* Key n, n below count: decoded anew; the caller frees. NULL: out of memory. */
EVP_PKEY *keys_get(const struct keys *k, size_t n);
