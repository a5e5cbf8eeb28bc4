/*
 * The factory's stations, on the device listener: a client certificate that is pinned to a station
 * has devices of its batch certified, or brings its journal. docs/factory.md describes it. Threads:
 * the table is constant.
 */
#pragma once

#include "proto/route.h"

extern const struct route_table station_routes;
