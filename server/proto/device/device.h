/*
 * The device listener's own routes, for devices of every protocol. POST /v1/enroll enrols;
 * GET /v1/device/config: a device with its permanent certificate fetches its configuration.
 * The first such call is VERIFY for devices without a broker.
 */
#pragma once

#include "proto/route.h"

extern const struct route_table device_enroll_routes;
extern const struct route_table device_config_routes;
