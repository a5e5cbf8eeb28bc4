/*
 * Enrollment over Secure Transport (RFC 7030, clarified by RFC 8951) under
 * /.well-known/est/[LABEL/], label = template name. The answers have the one shape that every
 * known client reads: base64 on one line and a final LF, Content-Length, exact types, the
 * issued certificate alone.
 */
#pragma once

#include "proto/route.h"

enum { EST_MAX_BODY_BYTES = 32768 };

extern const struct route_table est_routes;
