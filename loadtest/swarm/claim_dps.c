/* The device API of DPS: registers, polls what is under way, and looks up what was assigned. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "claim.h"

enum { OK = 200, ACCEPTED = 202, TOO_MANY_REQUESTS = 429, SERVER_ERRORS = 500, AGAIN = 429001 };
enum { SAS_LIFE_S = 3600 };

#define VERSION "?api-version=2021-06-01"

static bool looks_up(const struct claim *c)
{
    return c->step == CLAIM_CONNECT;
}

static bool polls(const struct claim *c)
{
    return !looks_up(c) && c->operation[0] != '\0';
}

/* By the key that the factory derived for this device. */
static enum err authorization_make(struct claim *c)
{
    _cleanup_(buf_donep) struct buf b = {0};
    uint8_t key[SHA256_BYTES];
    buf_init(&b, sizeof(c->authorization) - 1);
    enum err e = dps_key_derive(c->door->group_key, c->serial, key);
    if (!e)
        e = dps_sas_write(&b, bytes_of(key, sizeof(key)), c->door->scope, c->serial,
                          clock_wall_s() + SAS_LIFE_S);
    secret_cleanse(key, sizeof(key));
    if (!e)
        snprintf(c->authorization, sizeof(c->authorization), "%s", buf_text(&b));
    return e;
}

static enum err body_make(struct claim *c)
{
    _cleanup_(buf_donep) struct buf csr = {0};
    bool asks = c->door->csr && !looks_up(c);
    buf_init(&csr, CLAIM_MAX_BODY_BYTES);
    buf_done(&c->body);
    buf_init(&c->body, CLAIM_MAX_BODY_BYTES);
    enum err e = asks ? credential_request(c->key, c->serial, NULL, &csr) : ERR_OK;
    return e ? e : dps_body_write(&c->body, c->serial, asks ? buf_text(&csr) : NULL);
}

static void path_make(struct claim *c)
{
    const char *rest = looks_up(c) ? "" : polls(c) ? "/operations/" : "/register";
    snprintf(c->path, sizeof(c->path), "/%s/registrations/%s%s%s" VERSION, c->door->scope,
             c->serial, rest, polls(c) ? c->operation : "");
}

static void call_done(struct call *call);

enum err claim_dps_start(struct claim *c)
{
    bool by_key = c->door->kind == DOOR_DPS_SAS;
    enum err e = by_key ? authorization_make(c) : ERR_OK;
    if (!e && !polls(c))
        e = body_make(c);
    if (e)
        return e;
    path_make(c);
    c->call = (struct call){
        .target = c->target,
        .method = looks_up(c) ? "POST"
                  : polls(c)  ? "GET"
                              : "PUT",
        .path = c->path,
        .type = polls(c) ? NULL : "application/json; charset=utf-8",
        .authorization = by_key ? c->authorization : NULL,
        .body = polls(c) ? bytes_of(NULL, 0) : buf_bytes(&c->body),
        .certificate = by_key ? NULL : c->born_cert,
        .key = by_key ? NULL : c->born_key,
        .done = call_done,
        .owner = c,
    };
    return call_start(&c->call);
}

/* An error of DPS has its stable code in info. */
static void reject(struct claim *c, int status, const json_t *o)
{
    const char *code = json_string_value(json_object_get(json_object_get(o, "info"), "code"));
    bool again = status == TOO_MANY_REQUESTS || status >= SERVER_ERRORS;
    claim_finish(c, again ? CLAIM_FAILED : CLAIM_REFUSED,
                 code ? code : "a rejection without its reason");
}

static const char *certificate_take(struct claim *c, const char *certificate)
{
    X509_free(c->cert);
    c->cert = credential_cert_base64(bytes_text(certificate));
    return c->cert ? NULL : "not one certificate";
}

static const char *assignment_take(struct claim *c, const struct dps_answer *a)
{
    if (strlen(a->hub) >= sizeof(c->hub) || strlen(a->device) >= sizeof(c->thing))
        return "a broker or a device id that is too long";
    if (looks_up(c) && (strcmp(a->hub, c->hub) != 0 || strcmp(a->device, c->thing) != 0))
        return "another assignment than before";
    bool wanted = c->door->csr && !looks_up(c);
    if (wanted != (a->certificate != NULL))
        return wanted ? "no certificate" : "a certificate that was not asked for";
    const char *why = wanted ? certificate_take(c, a->certificate) : NULL;
    if (!why) {
        snprintf(c->hub, sizeof(c->hub), "%s", a->hub);
        snprintf(c->thing, sizeof(c->thing), "%s", a->device);
    }
    return why;
}

/* Of an operation whose end was told before, the answer lost, only the assignment is told again:
 * the certificate comes when the device registers once more. */
static bool certificate_missed(const struct claim *c, const struct dps_answer *a)
{
    return polls(c) && c->door->csr && !a->certificate;
}

static void assigned(struct claim *c, const struct dps_answer *a)
{
    bool missed = certificate_missed(c, a);
    const char *why = missed ? NULL : assignment_take(c, a);
    c->operation[0] = '\0';
    if (missed)
        claim_finish(c, CLAIM_FAILED, "assigned, the certificate missed");
    else
        claim_finish(c, why ? CLAIM_REFUSED : CLAIM_DONE, why ? why : "ok");
}

static void failed(struct claim *c, const struct dps_answer *a)
{
    char outcome[TALLY_NAME_BYTES];
    snprintf(outcome, sizeof(outcome), "failed %lld", (long long)a->code);
    c->operation[0] = '\0';
    claim_finish(c, a->code == AGAIN ? CLAIM_FAILED : CLAIM_REFUSED, outcome);
}

static void answer_take(struct claim *c, const struct dps_answer *a)
{
    switch (a->state) {
    case DPS_ASSIGNED:
        assigned(c, a);
        break;
    case DPS_ASSIGNING:
        snprintf(c->operation, sizeof(c->operation), "%s", a->operation);
        claim_finish(c, CLAIM_FAILED, "assigning");
        break;
    case DPS_FAILED:
        failed(c, a);
        break;
    }
}

static void call_done(struct call *call)
{
    struct claim *c = call->owner;
    struct dps_answer a;
    c->asked = call->stage == CALL_READ && !looks_up(c);
    if (!claim_answered(c, call))
        return;
    _cleanup_(json_decrefp) json_t *o =
        json_loadb((const char *)call->answer.data, call->answer.len, JSON_REJECT_DUPLICATES, NULL);
    if (call->status != OK && call->status != ACCEPTED) {
        reject(c, call->status, o);
        return;
    }
    const char *why = dps_answer_read(o, call->status, c->serial, !looks_up(c), &a);
    if (why)
        claim_finish(c, CLAIM_REFUSED, why);
    else
        answer_take(c, &a);
}
