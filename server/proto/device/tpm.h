/*
 * POST /v1/tpm/challenge and /v1/tpm/enroll: a certificate for a key that a TPM certifies
 * (docs/protocols/tpm.md). Threads: any.
 */
#pragma once

#include "proto/route.h"

enum { DEVICE_TPM_MAX_BODY_BYTES = 65536 };

enum err device_tpm_challenge_handle(struct service *service, struct exchange *x) MUST_CHECK;
enum err device_tpm_enroll_handle(struct service *service, struct exchange *x) MUST_CHECK;
