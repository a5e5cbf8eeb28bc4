/* CRLs, OCSP and the issuers' certificates, for relying parties: over plain HTTP, as what is served
 * is signed (RFC 5280 8, RFC 6960 A). Routes as data. */
#pragma once

#include "proto/route.h"

extern const struct route_table revocation_routes;
