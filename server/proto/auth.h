/*
 * The Authorization header of a device: Basic serial:token (RFC 7617) or Bearer token (RFC 6750).
 * Threads: any.
 */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "model/fault.h"
#include "proto/exchange.h"

enum { AUTH_MAX_HEADER_BYTES = 1024, AUTH_MAX_TOKEN_BYTES = 256 };

struct device_auth {
    const char *serial; /* NULL: Bearer, or an empty user */
    const char *token;
};

/* header is the field's value. Fault: auth.malformed. What follows a NUL inside Basic
 * credentials is ignored: real clients send it. Text lives in the arena. */
enum err auth_parse(struct arena *arena, const char *header, struct device_auth *ret_auth,
                    struct fault *fault) MUST_CHECK;

/* Tells a device its refusal: the code the registry lets it see, a challenge where a credential
 * is missing. Always ERR_DENIED. proven: the credential proves that very device. */
enum err auth_refuse(struct exchange *x, bool proven);
