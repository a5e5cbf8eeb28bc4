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

/* A claim's wish for a key of ours has no request: the template says which kind. */
static enum err key_choose(struct enrolment *e)
{
    static const enum key_kind order[] = {KEY_P256,    KEY_P384,    KEY_RSA2048,
                                          KEY_RSA3072, KEY_RSA4096, KEY_ED25519};
    if (!e->settings->server_keygen)
        return fault_set(e->fault, FAULT_KEYGEN_REFUSED, "template %s", e->template->label);
    for (size_t i = 0; i < ARRAY_LEN(order) && e->csr.kind == 0; i++) {
        if (e->settings->keys & order[i])
            e->csr.kind = order[i];
    }
    return ERR_OK;
}

enum err step_decode(struct enrolment *e)
{
    struct bytes der;
    if (e->rq->flow == FLOW_CREATE && e->rq->server_key)
        return key_choose(e);
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
