/*
 * Lines chained by their hashes: in such a file nothing can be changed, left out or put in between
 * without its being seen, up to the last seal. A line is a JSON object that begins with its number,
 * from 1, and the SHA-256 of the line before: {"n":7,"prev":"HEX",...}. A seal is a line
 * {"n":8,"prev":"HEX","seal":"BASE64"} with a signature over what stands before ,"seal".
 * Threads: owner only.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/secret.h"

enum { LEDGER_MAX_LINE_BYTES = 256 * 1024, LEDGER_HASH_CHARS = 2 * SHA256_BYTES };

/* The last line of a file: where the next one follows. Before the first: ledger_start. */
struct ledger {
    int64_t n;
    char hash[LEDGER_HASH_CHARS + 1];
};

void ledger_start(struct ledger *l);

/* Opens a line behind the last: an object with its number and hash, to which the caller adds
 * members. */
void ledger_begin(const struct ledger *l, struct buf *b);

/* Closes the line that began at byte `begin` of b, line end included, which then is the last. */
enum err ledger_end(struct ledger *l, struct buf *b, size_t begin) MUST_CHECK;

/* Adds a seal, by any key that Muster issues for. ERR_SYSTEM: the key does not sign. */
enum err ledger_seal(struct ledger *l, EVP_PKEY *key, struct buf *b) MUST_CHECK;

/* A line as it stands, without its line end; borrowed but for what is copied. */
struct ledger_line {
    int64_t n;
    char prev[LEDGER_HASH_CHARS + 1];
    char hash[LEDGER_HASH_CHARS + 1]; /* of the line itself */
    bool is_seal;
    struct bytes sealed;    /* what the signature is over */
    struct bytes signature; /* in the arena */
};

/* ERR_INVALID: it does not begin as a line does, or is longer than one may be. What follows the
 * hash of a line that is no seal is not looked at. */
enum err ledger_read(struct bytes text, struct arena *arena, struct ledger_line *ret) MUST_CHECK;

/* Whether the line follows the last one. */
bool ledger_follows(const struct ledger *l, const struct ledger_line *line);

/* It is the last one from now on. */
void ledger_step(struct ledger *l, const struct ledger_line *line);

/* Whether the seal is by that key, or by that certificate's. */
bool ledger_seal_verify(const struct ledger_line *line, EVP_PKEY *key);
bool ledger_seal_verify_by(const struct ledger_line *line, X509 *cert);
