/*
 * Secrets that need not stand in a file the configuration names: from the environment, from
 * systemd's $CREDENTIALS_DIRECTORY, or from a file, in that order. Threads: init only, as the
 * environment is read.
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"

struct config;

enum { CREDENTIAL_MAX_BYTES = 1024, CREDENTIAL_MIN_TOKEN_BYTES = 16 };

enum credential {
    CREDENTIAL_DATABASE_PASSWORD,
    CREDENTIAL_METRICS_TOKEN,
    CREDENTIAL_HOOK_SECRET,
    CREDENTIAL_CA_PASSPHRASE,
    CREDENTIAL_PKCS11_PIN,
    CREDENTIAL_COUNT,
};

/* The secret's first line; empty where no source has one. ret is initialised here, the caller
 * cleanses and frees it with credential_done. ret_where (may be NULL) names the source: constant
 * or of the configuration. ERR_DENIED: a file that others can read. ERR_INVALID: too long, or a
 * token too short to be one. */
enum err credential_load(enum credential which, const struct config *c, struct buf *ret,
                         const char **ret_where) MUST_CHECK;
void credential_done(struct buf *b);

/* Its environment variable, for --help. */
const char *credential_variable(enum credential which);

/* Whether a configuration value is "credential:NAME"; and the path it stands for, which the
 * caller frees. ERR_INVALID for a NAME that is no file name, or without systemd. */
bool credential_is_named(const char *value);
enum err credential_path(const char *value, char **ret_path) MUST_CHECK;
