/*
 * The admin API, /admin/v1: JSON over HTTPS, bearer tokens, roles viewer < operator < admin, an
 * audit row in the transaction of every change. docs/openapi.yaml describes it.
 */
#pragma once

#include "proto/route.h"

extern const struct route_table admin_routes;
