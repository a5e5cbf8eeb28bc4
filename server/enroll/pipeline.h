/*
 * The way of an enrolment, whatever protocol it came by:
 *
 *   authenticate > identify > decode > link > authorize > limit > hook > evaluate > issue > record
 *
 * or in two steps, by a claim: a certificate for nobody in particular (FLOW_CREATE, without hook
 * and evaluate), then the device it is for (FLOW_REGISTER, with own behind limit in place of
 * decode, link and authorize). The steps are a table; each is timed, and on failure the attempt
 * goes into the trail with how far it came. Announcing is the outbox row that record writes with
 * everything else. Nothing is consumed before record, and record is one transaction. Threads: any.
 */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "enroll/service.h"
#include "model/enrollment.h"
#include "model/fault.h"
#include "pki/cert.h"
#include "store/enrollment.h"

/* What the transport logs of an enrolment besides its outcome. */
struct enrollment_report {
    const char *serial;           /* NULL: not known */
    const char *credential;       /* token, factory, device, claim, none */
    const char *template;         /* its label; NULL: not known */
    const char *step;             /* the last that was begun; a constant */
    struct bytes challenge;       /* of FAULT_TPM_CHALLENGE: to sign a registration with */
    struct tpm_question question; /* likewise: to certify a key with */
    bool proven;                  /* the credential proves that very device */
    int64_t enrollment_id;        /* by which it registers; 0: by none */
    enum attestation attestation; /* of that enrollment */
    struct cert_info leaf;        /* what it registers with, where that is ATTEST_X509 */
    int64_t signer_id;            /* its group's CA; 0: it is pinned */
};

/*
 * Runs the pipeline. On ERR_DENIED the fault tells why and the attempt is in the trail.
 * Everything returned lives in the arena. ret_report is filled in any case.
 */
enum err pipeline_run(struct service *service, const struct enrollment_request *rq,
                      struct arena *arena, struct enrollment_result *ret_result,
                      struct enrollment_report *ret_report, struct fault *fault) MUST_CHECK;
