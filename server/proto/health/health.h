/* GET /healthz: the process answers. GET /readyz: it can serve now (database, catalog, drain). */
#pragma once

#include "proto/route.h"

extern const struct route_table health_routes;
