/*
 * What a device says to the device API of DPS and what it is told there: the texts of it, and no
 * connection. Threads: any.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/secret.h"

enum {
    DPS_MAX_KEY_BYTES = 64,
    DPS_SCOPE_BYTES = 65,
    DPS_OPERATION_BYTES = 129,
    DPS_HUB_BYTES = 256,
    DPS_MAX_SAS_BYTES = 640,
};

/* A symmetric key of 16 to 64 bytes from its base64, white space around it or not. */
enum err dps_key_read(struct bytes text, uint8_t ret_key[DPS_MAX_KEY_BYTES],
                      size_t *ret_len) MUST_CHECK;

/* The key of one device of a group. */
enum err dps_key_derive(struct bytes master, const char *registration_id,
                        uint8_t ret_key[SHA256_BYTES]) MUST_CHECK;

/* Appends what stands in Authorization, good until ends_s (seconds since 1970). */
enum err dps_sas_write(struct buf *b, struct bytes key, const char *scope,
                       const char *registration_id, int64_t ends_s) MUST_CHECK;

/* Appends the body of a registration or, without csr (base64 of DER), of a lookup too. */
enum err dps_body_write(struct buf *b, const char *registration_id, const char *csr) MUST_CHECK;

enum dps_state { DPS_ASSIGNED, DPS_ASSIGNING, DPS_FAILED };

/* What was answered; texts are borrowed from the JSON. */
struct dps_answer {
    enum dps_state state;
    const char *operation; /* under way: what to poll */
    const char *hub;       /* assigned */
    const char *device;
    const char *certificate; /* base64 of DER, the leaf's; NULL: none came */
    int64_t code;            /* failed */
};

/* Reads an answer of HTTP status 200 or 202. wrapped: as an operation has it; else as a lookup.
 * Returns why it is none, NULL: it is one. */
const char *dps_answer_read(const json_t *o, int status, const char *registration_id, bool wrapped,
                            struct dps_answer *ret_answer);
