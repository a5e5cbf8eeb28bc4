/*
 * One entry of a secure element manifest of Microchip's ("Trust Platform Manifest File Format":
 * version 1, version 3 "full", version 2 "lite"), as a line of an allowlist. Pure; for any bytes.
 * Threads: any.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/secret.h"
#include "pki/cert.h"
#include "proto/admin/allowlist_lines.h"

enum { MANIFEST_MAX_LINE_BYTES = 64 * 1024, MANIFEST_MAX_KEY_CHARS = 32 };

/* Whose word counts: a certificate and the SHA-256 of its DER. */
struct manifest_signer {
    uint8_t fingerprint[SHA256_BYTES];
    X509 *cert;
};

struct manifest_rule {
    const struct manifest_signer *signers;
    size_t signer_count;
    const char *key; /* which of the element's keys is the device's: its kid */
    const struct serial_rule *serial;
};

/* The signature is judged before anything else of the entry counts. The serial is the element's
 * uniqueId, the pin its key's; version 2 names no keys and pins nothing. ERR_INVALID fills reason,
 * and `shown` as far as possible. */
enum err manifest_line_parse(const struct manifest_rule *rule, const char *text, size_t len,
                             struct arena *arena, struct allowlist_line *ret_line,
                             char ret_reason[ALLOWLIST_REASON_BYTES]) MUST_CHECK;
