/*
 * Shared access signatures: what stands in a device's Authorization header. Threads: any.
 */
#pragma once

#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "model/fault.h"

enum { SAS_MAX_HEADER_BYTES = 2048 };

/* Its parts, in the arena. */
struct sas {
    const char *resource;     /* sr, percent-decoded */
    struct bytes signed_text; /* sr as it was sent, a line feed, se as it was sent */
    struct bytes signature;   /* 32 bytes */
    int64_t ends_s;           /* se, seconds since 1970 */
};

/* header is the field's value. Faults: sas.malformed. */
enum err sas_parse(struct arena *arena, const char *header, struct sas *ret_sas,
                   struct fault *fault) MUST_CHECK;

/* Whether it is for that registration of that scope, and still holds. A clock that is five minutes
 * slow is borne. Faults: sas.wrong_resource, sas.expired. */
enum err sas_check(const struct sas *sas, const char *scope, const char *registration_id,
                   int64_t now_s, struct fault *fault) MUST_CHECK;
