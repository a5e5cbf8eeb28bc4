#include "claim.h"

#include <stdio.h>

static void call_done(struct call *call);

static enum err request_make(struct claim *c)
{
    enum err e = claim_body_make(c);
    if (c->step == CLAIM_CREATE)
        snprintf(c->path, sizeof(c->path), "/v1/certificates/create-from-csr");
    else
        snprintf(c->path, sizeof(c->path), "/v1/provisioning-templates/%s/provision",
                 c->door->template_name);
    c->call.body = buf_bytes(&c->body);
    c->call.keep = c->step == CLAIM_CREATE;
    return e;
}

enum err claim_https_start(struct claim *c)
{
    c->call = (struct call){
        .target = c->target,
        .method = "POST",
        .path = c->path,
        .type = "application/json",
        .certificate = c->door->certificate,
        .key = c->door->key,
        .done = call_done,
        .owner = c,
    };
    enum err e = request_make(c);
    return e ? e : call_start(&c->call);
}

/* The second request goes over the connection of the first. */
static void go_on(struct claim *c)
{
    if (c->step == CLAIM_HELD)
        claim_finish(c, CLAIM_DONE, "ok");
    else if (request_make(c) || call_again(&c->call))
        claim_finish(c, CLAIM_FAILED, "no socket");
}

static void call_done(struct call *call)
{
    struct claim *c = call->owner;
    c->asked = call->stage == CALL_READ;
    if (!claim_succeeded(c, call))
        return;
    const char *why = claim_take(c, call->answer);
    if (why)
        claim_finish(c, CLAIM_REFUSED, why);
    else
        go_on(c);
}
