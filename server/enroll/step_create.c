/* What AWS calls Create*: a certificate is recorded for a claim, and a token that names it, given
 * out. Whoever shows the token within the hour registers a device with it. */
#include <string.h>

#include "base/secret.h"
#include "base/text.h"
#include "enroll/steps.h"
#include "enroll/token_text.h"

enum { OWNERSHIP_LIFE_S = 3600 };

enum err create_allowed(struct enrolment *e)
{
    struct enrol_outcome o = {0};
    enum err err = claim_certificate_check(e->service->db, e->claim.id,
                                           e->expired.code != FAULT_NONE, e->arena, &o);
    return enrolment_judged(e, err, &o, "asking the registry");
}

/* A serial that the request names where the claim's template looks; what cannot be a serial, such
 * as a sentence in CN, names none. */
static const char *csr_serial(const struct enrolment *e)
{
    const char *text = enrolment_named_serial(e);
    struct serial serial;
    return text && !serial_parse(&e->template->product->rule, text, &serial) ? text : NULL;
}

enum err create_record(struct enrolment *e)
{
    char token[TOKEN_TEXT_BYTES];
    struct enrol_record r = {0};
    struct enrol_outcome o = {0};
    enum err err = token_text_new("mot_", token, e->ownership_hash);
    if (err)
        return fault_set(e->fault, FAULT_INTERNAL, "making a token: %s", err_name(err));
    e->result.ownership_token = arena_strdup(e->arena, token);
    secret_cleanse(token, sizeof(token));
    e->result.certificate_id = text_hex(e->arena, bytes_of(e->issued.fingerprint, SHA256_BYTES));
    if (!e->result.ownership_token || !e->result.certificate_id)
        return enrolment_no_memory(e);
    enrolment_origin(e, &r);
    enrolment_certificate(e, &r);
    const struct claim_certificate c = {.record = &r,
                                        .key_kind = (int)e->csr.kind,
                                        .csr_serial = csr_serial(e),
                                        .life_s = OWNERSHIP_LIFE_S};
    e->result.certificate = e->issued.der;
    return enrolment_judged(e, claim_certificate_make(e->service->db, &c, e->arena, &o), &o,
                            "recording");
}
