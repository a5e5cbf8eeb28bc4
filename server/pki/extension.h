/* X.509 extensions encoded by hand. For pki/ only. Threads: owner only. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/bytes.h"

/* An extension of RFC 5280 4.2.1 or 5.2, of which the identifiers (id-ce) differ in the last byte.
 */
void extension_add(struct buf *b, uint8_t last, bool critical, struct bytes value);

/* DistributionPointName with one full name, a URL (RFC 5280 4.2.1.13), in its own tag. */
void extension_point_name(struct buf *b, const char *url);

/* CRLDistributionPoints: each URL a point of its own. */
void extension_points(struct buf *b, const char *const *urls, size_t count);
