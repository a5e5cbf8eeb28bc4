/* Revoked certificates, as the registry, CRLs (RFC 5280 section 5) and OCSP (RFC 6960) have them.
 */
#pragma once

#include <stdint.h>

#include "base/bytes.h"

struct revoked {
    struct bytes serial_number; /* magnitude, big endian */
    int64_t revoked_s;          /* seconds since 1970 */
    int reason;                 /* CRLReason, RFC 5280 5.3.1 */
};

/* The reasons that the registry has, by their names of RFC 5280; what it has no name for is
 * unspecified, 0. */
const char *revocation_reason_name(int reason);
int revocation_reason_of(const char *name);

enum ocsp_state { OCSP_GOOD, OCSP_REVOKED, OCSP_UNKNOWN };

struct ocsp_status {
    enum ocsp_state state;
    int64_t revoked_s; /* of OCSP_REVOKED */
    int reason;
};
