/* Distinguished names. Threads: any. */
#pragma once

#include <stdbool.h>

#include "base/bytes.h"

/* Whether two DER Names are the same name (RFC 5280 section 7.1): string types, letter case and
 * runs of blanks do not matter. False when either does not parse. */
bool name_equal(struct bytes a, struct bytes b);
