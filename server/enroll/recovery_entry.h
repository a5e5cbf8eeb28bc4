/*
 * What a line of a journal says, checked, and with what its certificate says added, as
 * muster.recover_lines takes it. Certificates count only where a CA that is known signed them.
 * Threads: owner only.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/secret.h"
#include "pki/cert.h"

/* Of journals and of the registry; all of it is freed by recovery_cas_done. */
struct recovery_ca {
    X509 *cert;
    uint8_t fingerprint[SHA256_BYTES];
    struct bytes subject; /* a Name; in names */
};
struct recovery_cas {
    struct recovery_ca *rows;
    size_t count;
    struct arena names;
};
void recovery_cas_init(struct recovery_cas *cas);
void recovery_cas_done(struct recovery_cas *cas);

/* One that is there already is not added. ERR_INVALID: it is no certificate. */
enum err recovery_cas_add(struct recovery_cas *cas, struct bytes der) MUST_CHECK;

enum recovery_kind {
    RECOVERY_BEGIN, /* which file it is: replica and file are set */
    RECOVERY_ENTRY, /* json is to be staged */
    RECOVERY_NONE,  /* says nothing of the registry */
};

struct recovery_entry {
    enum recovery_kind kind;
    const char *replica;
    int64_t file;
    const char *json; /* in the arena, as replica */
};

/* Reads a line; a CA in it is added. ERR_INVALID: *ret_why, a constant, says what is wrong. */
enum err recovery_entry_read(struct bytes text, struct recovery_cas *cas, struct arena *arena,
                             struct recovery_entry *ret_entry, const char **ret_why) MUST_CHECK;

/* The entry of a certificate alone: its serial is what its URN or CN says. template NULL: the only
 * one of the product. Likewise. */
enum err recovery_certificate_read(X509 *cert, const char *product, const char *template,
                                   struct recovery_cas *cas, struct arena *arena,
                                   const char **ret_json, const char **ret_why) MUST_CHECK;
