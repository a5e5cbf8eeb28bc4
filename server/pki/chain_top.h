/*
 * What a client's chain proves of a CA that nobody registered. Threads: any.
 */
#pragma once

#include <stddef.h>

#include "base/bytes.h"
#include "base/err.h"

/* The topmost of the CA certificates that came behind the leaf to which the leaf leads, signature
 * by signature (RFC 5280 6.1.3 (a)(1), 6.1.4 (k)-(n)); borrowed from the chain. That a certificate
 * has the issuer's name proves nothing. ERR_NOT_FOUND: the leaf leads to none. */
enum err chain_top(const struct bytes *chain, size_t count, struct bytes *ret_ca) MUST_CHECK;
