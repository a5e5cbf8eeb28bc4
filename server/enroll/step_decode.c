/* The request itself: PKCS#10 out of its wrapping, with proof of possession. */
#include "enroll/steps.h"

/* How the new key is to travel; refused here, before anything is made or consumed. */
static enum err keygen_check(struct enrolment *e)
{
    const struct enrollment_request *rq = e->rq;
    if (!e->settings->server_keygen)
        return fault_set(e->fault, FAULT_KEYGEN_REFUSED, "template %s", e->template->label);
    enum err err = keygen_wish_take(e->arena, &e->csr, &e->wish, e->fault);
    if (!err)
        err = keygen_wish_check(&e->wish, rq->chain_count > 0 ? rq->chain[0] : bytes_of(NULL, 0),
                                e->fault);
    return err;
}

enum err step_decode(struct enrolment *e)
{
    struct bytes der;
    enum err err = csr_unwrap(e->arena, e->rq->csr, &der);
    if (err == ERR_NO_MEMORY)
        return enrolment_no_memory(e);
    if (err)
        return fault_set(e->fault, FAULT_CSR_MALFORMED,
                         "neither base64, PEM nor DER, or longer than %d bytes", CSR_MAX_BYTES);
    err = e->rq->server_key ? csr_decode_unproven(e->arena, der, &e->csr, e->fault)
                            : csr_decode(e->arena, der, &e->csr, e->fault);
    if (!err && e->rq->server_key)
        err = keygen_check(e);
    if (err && e->fault->code == FAULT_NONE)
        return fault_set(e->fault, FAULT_INTERNAL, "decoding the CSR: %s", err_name(err));
    return err;
}
