/* What a client should put into its request (RFC 7030 4.5.2, ASN.1 as corrected by RFC 8951 3.2).
 */
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "model/profile.h"

struct csrattrs_request {
    unsigned keys;      /* enum key_kind bits; the first in order of preference is asked for */
    bool pop;           /* challengePassword, and est-identity-linking of RFC 7894 */
    bool serial_number; /* the subject's serialNumber */
};

/* DER of the CsrAttrs in the arena. */
enum err csrattrs_encode(struct arena *arena, const struct csrattrs_request *rq,
                         struct bytes *ret_der) MUST_CHECK;
