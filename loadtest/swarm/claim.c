#include "claim.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/text.h"

enum { OK = 200, ACCEPTED = 202, TOO_MANY_REQUESTS = 429, SERVER_ERRORS = 500 };

static enum err json_store(json_t *o, struct buf *ret)
{
    _cleanup_(freep) char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!text)
        return ERR_NO_MEMORY;
    buf_add_text(ret, text);
    return ret->overflow ? ERR_NO_MEMORY : ERR_OK;
}

static enum err create_body_make(struct claim *c)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    buf_init(&pem, CLAIM_MAX_BODY_BYTES);
    enum err e = credential_request_pem(c->key, c->serial, &pem);
    return e ? e
             : json_store(json_pack("{s:s}", "certificateSigningRequest", buf_text(&pem)),
                          &c->body);
}

enum err claim_body_make(struct claim *c)
{
    buf_done(&c->body);
    buf_init(&c->body, CLAIM_MAX_BODY_BYTES);
    if (c->step == CLAIM_CREATE)
        return create_body_make(c);
    return json_store(json_pack("{s:s,s:{s:s}}", "certificateOwnershipToken", c->token,
                                "parameters", "SerialNumber", c->serial),
                      &c->body);
}

/* certificateId is the SHA-256 of the certificate's DER. */
static bool names_certificate(const char *id, X509 *x)
{
    uint8_t fingerprint[SHA256_BYTES], named[SHA256_BYTES];
    return !credential_fingerprint(x, fingerprint) &&
           text_parse_hex(id, named, sizeof(named)) == ERR_OK &&
           memcmp(fingerprint, named, sizeof(named)) == 0;
}

static const char *certificate_take(struct claim *c, const json_t *o)
{
    const char *pem = json_string_value(json_object_get(o, "certificatePem"));
    const char *id = json_string_value(json_object_get(o, "certificateId"));
    const char *token = json_string_value(json_object_get(o, "certificateOwnershipToken"));
    if (!pem || !id || !token || token[0] == '\0' || strlen(token) >= sizeof(c->token))
        return "not a certificate, its id and its token";
    X509_free(c->cert);
    c->cert = credential_cert_pem(bytes_text(pem));
    if (!c->cert)
        return "not one certificate";
    if (!names_certificate(id, c->cert))
        return "an id of another certificate";
    snprintf(c->token, sizeof(c->token), "%s", token);
    return NULL;
}

static const char *thing_take(struct claim *c, const json_t *o)
{
    const char *thing = json_string_value(json_object_get(o, "thingName"));
    if (!thing || strlen(thing) >= sizeof(c->thing) ||
        !json_is_object(json_object_get(o, "deviceConfiguration")))
        return "not a thing and its configuration";
    if (!strstr(thing, c->serial))
        return "another device's thing";
    snprintf(c->thing, sizeof(c->thing), "%s", thing);
    return NULL;
}

const char *claim_take(struct claim *c, struct bytes payload)
{
    _cleanup_(json_decrefp) json_t *o =
        json_loadb((const char *)payload.data, payload.len, JSON_REJECT_DUPLICATES, NULL);
    const char *why = c->step == CLAIM_CREATE ? certificate_take(c, o) : thing_take(c, o);
    c->asked = false;
    if (!why)
        c->step = c->step == CLAIM_CREATE ? CLAIM_REGISTER : CLAIM_HELD;
    return why;
}

/* The fault's code: a member over HTTPS, and always the first word of the message. */
static bool reason_read(const json_t *o, int status, char ret[TALLY_NAME_BYTES])
{
    const char *code = json_string_value(json_object_get(o, "code"));
    const char *message = json_string_value(json_object_get(o, "errorMessage"));
    bool whole = message && json_is_string(json_object_get(o, "errorCode")) &&
                 json_integer_value(json_object_get(o, "statusCode")) == status;
    if (whole)
        snprintf(ret, TALLY_NAME_BYTES, "%.*s", (int)strcspn(message, " "), message);
    else if (code)
        snprintf(ret, TALLY_NAME_BYTES, "%s", code); /* refused before it came to provisioning */
    return whole || code;
}

static bool worth_another(int status)
{
    return status == ACCEPTED || status == TOO_MANY_REQUESTS || status >= SERVER_ERRORS;
}

void claim_reject(struct claim *c, int status, struct bytes payload)
{
    _cleanup_(json_decrefp) json_t *o =
        json_loadb((const char *)payload.data, payload.len, JSON_REJECT_DUPLICATES, NULL);
    char outcome[TALLY_NAME_BYTES] = "a rejection without its reason";
    c->asked = false;
    if (status == 0)
        status = (int)json_integer_value(json_object_get(o, "statusCode"));
    bool told = reason_read(o, status, outcome);
    claim_finish(c, told && worth_another(status) ? CLAIM_FAILED : CLAIM_REFUSED, outcome);
}

void claim_finish(struct claim *c, enum claim_end end, const char *outcome)
{
    claim_abandon(c);
    c->end = end;
    c->answer_lost = c->asked;
    c->ended_us = clock_mono_us();
    snprintf(c->outcome, sizeof(c->outcome), "%s", outcome);
    c->done(c);
}

bool claim_answered(struct claim *c, const struct call *call)
{
    static const char *const stages[] = {"connection refused", "handshake failed", "not sent",
                                         "no answer"};
    c->handshaken_us = call->handshaken_us;
    c->retry_after_s = call->retry_after_s;
    if (call->stage == CALL_DONE)
        return true;
    claim_finish(c, CLAIM_FAILED, stages[call->stage]);
    return false;
}

bool claim_succeeded(struct claim *c, const struct call *call)
{
    if (!claim_answered(c, call))
        return false;
    if (call->status != OK)
        claim_reject(c, call->status, call->answer);
    return call->status == OK;
}

bool claim_calls(const struct claim *c)
{
    return !scenario_door_is_mqtt(c->door->kind);
}

static enum err start(struct claim *c)
{
    c->retry_after_s = 0;
    c->asked = false;
    c->began_us = clock_mono_us();
    c->handshaken_us = 0;
    enum err e;
    if (scenario_door_is_jit(c->door->kind))
        e = claim_jit_start(c);
    else if (scenario_door_is_dps(c->door->kind))
        e = claim_dps_start(c);
    else if (c->door->kind == DOOR_SCEP)
        e = claim_scep_start(c);
    else
        e = claim_calls(c) ? claim_https_start(c) : claim_mqtt_start(c);
    c->under_way = !e;
    return e;
}

enum err claim_start(struct claim *c)
{
    if (c->step != CLAIM_REGISTER)
        c->step = CLAIM_CREATE;
    return start(c);
}

enum err claim_connect(struct claim *c)
{
    c->step = CLAIM_CONNECT;
    return start(c);
}

void claim_abandon(struct claim *c)
{
    if (!c->under_way)
        return;
    c->under_way = false;
    if (claim_calls(c))
        call_abandon(&c->call);
    else
        session_close(&c->session);
}

void claim_forget(struct claim *c)
{
    claim_abandon(c);
    X509_free(c->cert);
    c->cert = NULL;
    c->step = CLAIM_CREATE;
    c->operation[0] = c->hub[0] = '\0';
    secret_cleanse(c->token, sizeof(c->token));
    scep_request_done(&c->scep);
    buf_done(&c->body);
}
