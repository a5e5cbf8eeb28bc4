/* The certificate that a registration is for: made before, named by its ownership token. What was
 * registered already in the same words is answered in the same words. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "enroll/steps.h"

enum { MAX_PARAMETERS_BYTES = 256 * 1024, MAX_OWNERSHIP_CHARS = 512 };

static int parameter_order(const void *a, const void *b)
{
    const struct enrollment_parameter *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Names and values with their lengths, so that no two sets of them read alike. */
static enum err parameters_digest(const struct enrolment *e, uint8_t ret[SHA256_BYTES])
{
    const struct enrollment_request *rq = e->rq;
    const struct enrollment_parameter *sorted[ENROLLMENT_MAX_PARAMETERS];
    _cleanup_(buf_donep) struct buf b = {0};
    for (size_t i = 0; i < rq->parameter_count; i++)
        sorted[i] = &rq->parameters[i];
    qsort(sorted, rq->parameter_count, sizeof(sorted[0]), parameter_order);
    buf_init(&b, MAX_PARAMETERS_BYTES);
    buf_printf(&b, "%s", e->template->name);
    for (size_t i = 0; i < rq->parameter_count; i++)
        buf_printf(&b, "\n%zu:%s=%zu:%s", strlen(sorted[i]->name), sorted[i]->name,
                   strlen(sorted[i]->value), sorted[i]->value);
    return b.overflow ? ERR_INVALID : digest_sha256(buf_bytes(&b), ret);
}

/* Names that say what the server knows are not the device's to give. */
static enum err parameters_check(const struct enrolment *e)
{
    for (size_t i = 0; i < e->rq->parameter_count; i++) {
        const char *name = e->rq->parameters[i].name;
        if (strchr(name, ':'))
            return fault_set(e->fault, FAULT_REQUEST_MALFORMED,
                             "parameter \"%.80s\" is not for devices to give", name);
    }
    return ERR_OK;
}

static enum err token_read(struct enrolment *e)
{
    const char *token = e->rq->ownership_token;
    if (!token || token[0] == '\0')
        return fault_set(e->fault, FAULT_OWNERSHIP_INVALID,
                         "Certificate ownership token cannot be empty.");
    if (strlen(token) > MAX_OWNERSHIP_CHARS)
        return fault_set(e->fault, FAULT_OWNERSHIP_INVALID, "longer than %d characters",
                         MAX_OWNERSHIP_CHARS);
    enum err err = digest_sha256(bytes_text(token), e->ownership_hash);
    if (!err)
        err = parameters_digest(e, e->parameters_hash);
    return err ? fault_set(e->fault, FAULT_INTERNAL, "digest: %s", err_name(err)) : ERR_OK;
}

/* The kind of the key was the claim's template's to allow; now it is this one's. */
static enum err owned_take(struct enrolment *e)
{
    const struct claim_owned *o = &e->owned;
    e->csr.kind = (enum key_kind)o->key_kind;
    if (o->spki.len != SHA256_BYTES || o->fingerprint.len != SHA256_BYTES ||
        o->serial_number.len > ISSUER_SERIAL_BYTES)
        return fault_set(e->fault, FAULT_INTERNAL, "the registry's certificate does not fit");
    if (!(e->settings->keys & e->csr.kind))
        return fault_set(e->fault, FAULT_CSR_KEY, "template %s does not allow %s",
                         e->template->label, key_kind_name(e->csr.kind));
    memcpy(e->csr.spki_sha256, o->spki.data, SHA256_BYTES);
    e->issued.der = o->certificate;
    e->issued.not_before_s = o->not_before_s;
    e->issued.not_after_s = o->not_after_s;
    memcpy(e->issued.fingerprint, o->fingerprint.data, SHA256_BYTES);
    memcpy(e->issued.serial_number + ISSUER_SERIAL_BYTES - o->serial_number.len,
           o->serial_number.data, o->serial_number.len);
    return ERR_OK;
}

enum err step_own(struct enrolment *e)
{
    struct enrol_record r = {0};
    struct enrol_outcome o = {0};
    enum err err = parameters_check(e);
    if (!err)
        err = token_read(e);
    if (err)
        return err;
    enrolment_origin(e, &r);
    err = enrolment_judged(e, claim_certificate_open(e->service->db, &r, e->arena, &e->owned, &o),
                           &o, "owning");
    if (err)
        return err;
    if (o.answer)
        return enrolment_answer_again(e, &o);
    return owned_take(e);
}
