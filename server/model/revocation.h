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

enum ocsp_state { OCSP_GOOD, OCSP_REVOKED, OCSP_UNKNOWN };

struct ocsp_status {
    enum ocsp_state state;
    int64_t revoked_s; /* of OCSP_REVOKED */
    int reason;
};
