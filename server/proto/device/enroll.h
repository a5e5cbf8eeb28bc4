/*
 * POST /v1/enroll: enrolment for devices without EST. JSON in, JSON out, the same pipeline.
 */
#pragma once

#include "proto/route.h"

enum { DEVICE_ENROLL_MAX_BODY_BYTES = 65536 };

struct enrollment_result;

enum err device_enroll_handle(struct service *service, struct exchange *x) MUST_CHECK;

/* The certificate and the CAs above it as JSON. */
enum err device_enroll_answer(struct service *service, struct exchange *x,
                              const struct enrollment_result *r) MUST_CHECK;
