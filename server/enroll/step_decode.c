/* The request itself: PKCS#10 out of its wrapping, with proof of possession. */
#include "enroll/steps.h"

enum err step_decode(struct enrolment *e)
{
    struct bytes der;
    enum err err = csr_unwrap(e->arena, e->rq->csr, &der);
    if (err == ERR_NO_MEMORY)
        return enrolment_no_memory(e);
    if (err)
        return fault_set(e->fault, FAULT_CSR_MALFORMED,
                         "neither base64, PEM nor DER, or longer than %d bytes", CSR_MAX_BYTES);
    err = csr_decode(e->arena, der, &e->csr, e->fault);
    if (err && e->fault->code == FAULT_NONE)
        return fault_set(e->fault, FAULT_INTERNAL, "decoding the CSR: %s", err_name(err));
    return err;
}
