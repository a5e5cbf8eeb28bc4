/* Where SCEP is spoken, and whom messages there are for. */
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "credential.h"
#include "world.h"

static void certs_freep(STACK_OF(X509) * *s)
{
    sk_X509_pop_free(*s, X509_free);
}

static enum err complain(const char *what, const char *object)
{
    fprintf(stderr, "swarm: %s: %s\n", what, object);
    return ERR_INVALID;
}

/* http://HOST:PORT/PATH or https:, at the server's CAs. */
static enum err address_take(struct world *w, const char *url)
{
    char scheme[8] = "", port[8] = "";
    if (!url || sscanf(url, "%7[a-z]://%255[^:/]:%7[0-9]%127[^?#]", scheme, w->scep_host, port,
                       w->scep_path) != 4)
        return complain("MUSTER_SCEP_URL must be http://HOST:PORT/PATH", url ? url : "not set");
    bool tls = strcmp(scheme, "https") == 0;
    if (!tls && strcmp(scheme, "http") != 0)
        return complain("MUSTER_SCEP_URL must be http or https", url);
    w->scep = w->target;
    w->lost_scep = w->lost_target;
    if (!tls)
        w->scep.tls = w->lost_scep.tls = NULL;
    if (dial_resolve(&w->scep, w->scep_host, port) ||
        dial_resolve(&w->lost_scep, w->scep_host, port))
        return complain("no such host", w->scep_host);
    return ERR_OK;
}

/* The first of GetCACert; it must chain to the roots by the others of it. */
static enum err ra_take(struct world *w, struct bytes answer)
{
    X509 *certs[WORLD_MAX_CAS] = {0};
    size_t n = credential_certs_der(answer, certs, WORLD_MAX_CAS);
    _cleanup_(certs_freep) STACK_OF(X509) *between = sk_X509_new_null();
    for (size_t i = 1; i < n; i++) {
        if (!between || !sk_X509_push(between, certs[i]))
            X509_free(certs[i]);
    }
    w->claim.certificate = certs[0];
    const char *why = n > 0 ? credential_distrust(certs[0], w->trust, between, true) : "none";
    return why ? complain("GetCACert has no registration authority to trust", why) : ERR_OK;
}

struct fetch {
    struct world *world;
    enum err e;
};

static void ra_done(struct call *c)
{
    struct fetch *f = c->owner;
    f->e = c->stage == CALL_DONE && c->status == 200
               ? ra_take(f->world, c->answer)
               : complain("GetCACert was not answered at", f->world->scep_host);
    loop_stop(c->target->loop);
}

/* On a loop of its own: that of the run ends once. */
static enum err ra_fetch(struct world *w, const char *path)
{
    struct dial_target target = w->scep;
    struct fetch f = {.world = w, .e = ERR_SYSTEM};
    struct call c = {
        .target = &target, .method = "GET", .path = path, .done = ra_done, .owner = &f};
    if (loop_new(&target.loop))
        return complain("out of memory", "SCEP");
    if (call_start(&c))
        (void)complain("GetCACert cannot be asked at", w->scep_host);
    else
        loop_run(target.loop);
    loop_free(target.loop);
    return f.e;
}

enum err world_scep(struct world *w, const char *template_name)
{
    char path[CLAIM_MAX_PATH_BYTES];
    enum err e = address_take(w, getenv("MUSTER_SCEP_URL"));
    if (e)
        return e;
    w->claim.kind = DOOR_SCEP;
    w->claim.template_name = template_name;
    w->claim.path = w->scep_path;
    snprintf(path, sizeof(path), "%s/%s?operation=GetCACert", w->scep_path, template_name);
    return ra_fetch(w, path);
}
