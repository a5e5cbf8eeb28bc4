#include "model/revocation.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/cleanup.h"

/* By CRLReason (RFC 5280 5.3.1); removal from a CRL and holds are not for good, and not here. */
static const char *const names[] = {
    [0] = "unspecified",        [1] = "keyCompromise", [2] = "cACompromise",
    [3] = "affiliationChanged", [4] = "superseded",    [5] = "cessationOfOperation",
    [9] = "privilegeWithdrawn"};

const char *revocation_reason_name(int reason)
{
    bool known = reason >= 0 && (size_t)reason < ARRAY_LEN(names) && names[reason];
    return names[known ? reason : 0];
}

int revocation_reason_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (names[i] && strcmp(names[i], name) == 0)
            return (int)i;
    }
    return 0;
}
