/* SCEP: one POST, of a PKCSReq; what waits for an operator is asked for again, as it was. */
#include <stdio.h>

#include "claim.h"

static const char message_type[] = "application/x-pki-message";

static void call_done(struct call *call);

static enum err message_make(struct claim *c)
{
    buf_done(&c->body);
    buf_init(&c->body, CLAIM_MAX_BODY_BYTES);
    c->scep.ra = c->door->certificate;
    c->scep.key = c->key;
    return scep_request_write(&c->scep, c->serial, c->challenge, &c->body);
}

enum err claim_scep_start(struct claim *c)
{
    enum err e = message_make(c);
    if (e)
        return e;
    snprintf(c->path, sizeof(c->path), "%s/%s?operation=PKIOperation", c->door->path,
             c->door->template_name);
    c->call = (struct call){
        .target = c->target,
        .method = "POST",
        .path = c->path,
        .type = message_type,
        .body = buf_bytes(&c->body),
        .done = call_done,
        .owner = c,
    };
    return call_start(&c->call);
}

static void answer_take(struct claim *c, const struct scep_answer *a)
{
    switch (a->end) {
    case SCEP_ISSUED:
        X509_free(c->cert);
        c->cert = a->certificate;
        c->step = CLAIM_HELD;
        claim_finish(c, CLAIM_DONE, "ok");
        break;
    case SCEP_REFUSED:
        claim_finish(c, CLAIM_REFUSED, a->reason);
        break;
    case SCEP_WAITS:
        claim_finish(c, CLAIM_FAILED, "pending");
        break;
    }
}

static void call_done(struct call *call)
{
    struct claim *c = call->owner;
    struct scep_answer a;
    c->asked = call->stage == CALL_READ;
    if (!claim_succeeded(c, call))
        return;
    const char *why = scep_answer_read(&c->scep, call->answer, &a);
    if (why)
        claim_finish(c, CLAIM_REFUSED, why);
    else
        answer_take(c, &a);
}
