#include "proto/revocation/revocation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/secret.h"
#include "base/text.h"
#include "enroll/catalog.h"
#include "enroll/crl_shelf.h"
#include "enroll/ocsp.h"
#include "enroll/service.h"
#include "pki/cert.h"
#include "pki/ocsp.h"

enum {
    MAX_ISSUERS = 64,
    CERTIFICATE_MAX_AGE_S = 86400,
    DATE_BYTES = 32,
    OCSP_MAX_TEXT = 8192 /* of a request in the path */
};

/* RFC 9110 5.6.7. */
static char *http_date(struct arena *arena, int64_t wall_s)
{
    char text[DATE_BYTES];
    struct tm tm;
    time_t t = (time_t)wall_s;
    if (!gmtime_r(&t, &tm) || strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm) == 0)
        return NULL;
    return arena_strdup(arena, text);
}

/* A cache may keep it until the next one is due (RFC 5019 section 6, as browsers and proxies read
 * it). */
static enum err caching_add(struct exchange *x, const char *tag, int64_t this_s, int64_t next_s)
{
    int64_t left_s = next_s - clock_wall_s();
    const char *control = arena_printf(x->arena, "public, max-age=%lld, no-transform",
                                       (long long)(left_s > 0 ? left_s : 0));
    const char *etag = arena_printf(x->arena, "\"%s\"", tag);
    const char *modified = http_date(x->arena, this_s), *expires = http_date(x->arena, next_s);
    if (!control || !etag || !modified || !expires)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    exchange_add_header(x, "Cache-Control", control);
    exchange_add_header(x, "ETag", etag);
    exchange_add_header(x, "Last-Modified", modified);
    exchange_add_header(x, "Expires", expires);
    return ERR_OK;
}

/* If-None-Match with one tag or several (RFC 9110 13.1.2). */
static bool is_known(const struct exchange *x, const char *tag)
{
    const char *header = exchange_header(x, "If-None-Match");
    const char *found = header ? strstr(header, tag) : NULL;
    return found && found > header && found[-1] == '"' && found[strlen(tag)] == '"';
}

static const struct issuer *issuer_find(const struct snapshot *snapshot, const char *slug)
{
    const char *names[MAX_ISSUERS];
    size_t count = snapshot_issuers(snapshot, names, MAX_ISSUERS);
    for (size_t i = 0; i < count; i++) {
        const struct issuer *issuer = snapshot_issuer(snapshot, names[i]);
        if (issuer && strcmp(issuer_slug(issuer), slug) == 0)
            return issuer;
    }
    return NULL;
}

static enum err catalog_take(struct service *service, struct exchange *x, struct snapshot **ret)
{
    return catalog_get(service->catalog, ret)
               ? fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded")
               : ERR_OK;
}

/* "16-3": the fourth of sixteen. */
static bool shard_parse(const char *text, struct crl_name *name)
{
    char rest = '\0';
    return sscanf(text, "%3d-%3d%c", &name->shards, &name->shard, &rest) == 2 && name->shards > 1 &&
           name->shard >= 0 && name->shard < name->shards;
}

static enum err crl_reply(struct service *service, struct exchange *x, const struct crl_name *name)
{
    struct crl_signed crl;
    enum err e = crl_shelf_get(service->crls, service->db, name, x->arena, &crl);
    if (e == ERR_NOT_FOUND)
        return fault_set(&x->fault, FAULT_REQUEST_NOT_FOUND, "there is no such CRL");
    if (e)
        return fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "%s", err_name(e));
    const char *tag = arena_printf(x->arena, "%lld", (long long)crl.number);
    if (!tag)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    e = caching_add(x, tag, crl.this_update_s, crl.next_update_s);
    if (e)
        return e;
    if (is_known(x, tag))
        exchange_reply(x, 304, NULL, bytes_of(NULL, 0));
    else
        exchange_reply(x, 200, "application/pkix-crl", crl.der);
    return ERR_OK;
}

static enum err crl_answer(struct service *service, struct exchange *x, bool delta)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    struct crl_name name = {.shards = 1, .delta = delta};
    enum err e = catalog_take(service, x, &snapshot);
    if (e)
        return e;
    const struct issuer *issuer = issuer_find(snapshot, x->args[0]);
    if (!issuer || (x->args[1] && !shard_parse(x->args[1], &name)))
        return fault_set(&x->fault, FAULT_REQUEST_NOT_FOUND, "there is no such CRL");
    name.issuer_id = issuer_id(issuer);
    return crl_reply(service, x, &name);
}

static enum err full_handle(struct service *service, struct exchange *x)
{
    return crl_answer(service, x, false);
}

static enum err delta_handle(struct service *service, struct exchange *x)
{
    return crl_answer(service, x, true);
}

/* RFC 5280 4.2.2.1: one certificate, DER. */
static enum err certificate_handle(struct service *service, struct exchange *x)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    enum err e = catalog_take(service, x, &snapshot);
    const struct issuer *issuer = e ? NULL : issuer_find(snapshot, x->args[0]);
    const struct catalog_ca *ca = issuer ? snapshot_ca(snapshot, issuer_id(issuer)) : NULL;
    if (e)
        return e;
    if (!ca)
        return fault_set(&x->fault, FAULT_REQUEST_NOT_FOUND, "there is no such CA");
    int64_t now_s = clock_wall_s();
    const void *copy = arena_copy(x->arena, ca->der.data, ca->der.len);
    e = copy ? caching_add(x, issuer_slug(issuer), now_s, now_s + CERTIFICATE_MAX_AGE_S)
             : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    if (!e)
        exchange_reply(x, 200, "application/pkix-cert", bytes_of(copy, ca->der.len));
    return e;
}

/* Only what is asked by GET has an address that a cache could keep it under. */
static enum err ocsp_reply(struct service *service, struct exchange *x, struct bytes request)
{
    struct ocsp_answer answer;
    uint8_t digest[SHA256_BYTES];
    enum err e = ERR_OK;
    ocsp_ask(service, request, x->source, x->arena, &answer);
    if (x->method == HTTP_GET && answer.this_update_s != 0) {
        e = digest_sha256(answer.der, digest);
        const char *tag = e ? NULL : text_hex(x->arena, bytes_of(digest, sizeof(digest) / 2));
        e = tag ? caching_add(x, tag, answer.this_update_s, answer.next_update_s)
                : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    }
    if (!e)
        exchange_reply(x, 200, "application/ocsp-response", answer.der);
    return e;
}

static enum err ocsp_post_handle(struct service *service, struct exchange *x)
{
    return ocsp_reply(service, x, x->body);
}

/* Base64, percent-encoded or, of clients that forget it, with its slashes (RFC 6960 A.1). What
 * does not decode is answered as what does not parse. */
static enum err ocsp_get_handle(struct service *service, struct exchange *x)
{
    struct bytes der = {0};
    const char *text = x->args[0];
    if (strlen(text) > OCSP_MAX_TEXT || base64_decode(x->arena, bytes_text(text), &der))
        der = bytes_of(NULL, 0);
    return ocsp_reply(service, x, der);
}

static const struct route routes[] = {
    {HTTP_GET, "/crl/{}.crl", NULL, 0, 0, full_handle, NULL},
    {HTTP_GET, "/crl/{}.delta.crl", NULL, 0, 0, delta_handle, NULL},
    {HTTP_GET, "/crl/{}/{}.crl", NULL, 0, 0, full_handle, NULL},
    {HTTP_GET, "/crl/{}/{}.delta.crl", NULL, 0, 0, delta_handle, NULL},
    {HTTP_GET, "/ca/{}.crt", NULL, 0, 0, certificate_handle, NULL},
    {HTTP_POST, "/ocsp", "application/ocsp-request", OCSP_MAX_REQUEST_BYTES, 0, ocsp_post_handle,
     NULL},
    {HTTP_GET, "/ocsp/{*}", NULL, 0, 0, ocsp_get_handle, NULL},
};

const struct route_table revocation_routes = {
    .rows = routes, .count = ARRAY_LEN(routes), .protocol = PROTOCOL_REVOCATION};
