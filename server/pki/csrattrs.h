/*
 * What a client should put into its request: the attributes of RFC 7030 4.5.2 (ASN.1 as corrected
 * by RFC 8951 3.2) and, behind them, the request template of RFC 9908 section 3.4. A client that
 * knows the template uses only it; an older one ignores it. Threads: any.
 */
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "model/profile.h"

/* Where the request names its device. */
enum csrattrs_serial { CSRATTRS_CN, CSRATTRS_SERIAL_NUMBER, CSRATTRS_SAN };

struct csrattrs_request {
    unsigned keys; /* enum key_kind bits; the first in order of preference is asked for */
    unsigned eku;  /* enum eku bits */
    bool pop;      /* challengePassword, and est-identity-linking of RFC 7894 */
    enum csrattrs_serial serial;
};

/* DER of the CsrAttrs in the arena. */
enum err csrattrs_encode(struct arena *arena, const struct csrattrs_request *rq,
                         struct bytes *ret_der) MUST_CHECK;
