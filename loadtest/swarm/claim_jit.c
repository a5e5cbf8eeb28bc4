#include <openssl/x509.h>
#include <stdio.h>

#include "claim.h"

static void call_done(struct call *call)
{
    struct claim *c = call->owner;
    if (claim_succeeded(c, call))
        claim_finish(c, CLAIM_DONE, "ok");
}

static enum err config_ask(struct claim *c)
{
    c->call = (struct call){
        .target = c->target,
        .method = "GET",
        .path = "/v1/device/config",
        .certificate = c->cert,
        .key = c->key,
        .done = call_done,
        .owner = c,
    };
    return call_start(&c->call);
}

/* The factory burns the certificate in once; the client id is the device's serial, unless the owner
 * has given another. */
enum err claim_jit_start(struct claim *c)
{
    if (!c->cert)
        c->cert = credential_factory(c->key, c->serial, c->door->certificate, c->door->key);
    if (!c->cert)
        return ERR_NO_MEMORY;
    c->step = CLAIM_CONNECT;
    if (c->thing[0] == '\0')
        snprintf(c->thing, sizeof(c->thing), "%s", c->serial);
    return claim_calls(c) ? config_ask(c) : claim_mqtt_start(c);
}
