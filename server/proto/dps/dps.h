/*
 * The device API of Azure's Device Provisioning Service: register, operation status, registration
 * lookup, over HTTPS (docs/protocols/dps.md). Threads: any.
 */
#pragma once

#include "proto/route.h"

extern const struct route_table dps_routes;
