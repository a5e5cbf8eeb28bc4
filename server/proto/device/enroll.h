/*
 * POST /v1/enroll: enrolment for devices without EST. JSON in, JSON out, the same pipeline.
 */
#pragma once

#include "proto/route.h"

enum { DEVICE_ENROLL_MAX_BODY_BYTES = 65536 };

enum err device_enroll_handle(struct service *service, struct exchange *x) MUST_CHECK;
