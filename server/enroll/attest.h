/* The ways of attestation that have a file of their own; for step_attest.c and step_authenticate.c.
 * Threads: the request's own.
 */
#pragma once

#include "enroll/steps.h"

/* By the key that the TLS connection was made with. */
enum err attest_psk(struct enrolment *e) MUST_CHECK;

/* By the TPM of an individual enrollment: FAULT_TPM_CHALLENGE where the request is not signed yet.
 */
enum err attest_tpm(struct enrolment *e, const struct enrollment_row *row) MUST_CHECK;

/* By a TPM whose endorsement key has a certificate of a manufacturer that a group trusts. */
enum err attest_tpm_group(struct enrolment *e, const struct enrollment_row *rows, size_t count,
                          const struct enrollment_row **ret_row) MUST_CHECK;
