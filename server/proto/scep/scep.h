/*
 * SCEP (RFC 8894): GetCACaps, GetCACert, GetNextCACert and PKIOperation, at the paths that clients
 * insist on (docs/protocols/scep.md). Threads: any.
 */
#pragma once

#include "proto/route.h"

extern const struct route_table scep_routes;
