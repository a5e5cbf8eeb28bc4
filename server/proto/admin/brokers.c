/* What other brokers ask: whether a certificate may connect, publish, subscribe. */
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"
#include "base/text.h"
#include "enroll/admit.h"
#include "enroll/broker_question.h"
#include "enroll/service.h"
#include "pki/cert.h"
#include "proto/admin/broker_said.h"
#include "proto/admin/hooks.h"
#include "store/enrol.h"

static enum err malformed(struct exchange *x, const char *what)
{
    return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%s", what);
}

static enum err leaf_read(struct exchange *x, const char *pem, struct bytes *ret_der)
{
    _cleanup_(cert_freep) X509 *cert = NULL;
    enum err e = cert_parse_first_pem(bytes_text(pem), &cert);
    if (!e)
        e = cert_encode(x->arena, cert, ret_der);
    return e ? malformed(x, "cert_pem is no certificate") : ERR_OK;
}

/* The certificate itself, or its fingerprint; else the name in it will have to do. */
static enum err certificate_find(struct exchange *x, const struct broker_said *s,
                                 struct broker_question *q, struct bytes *ret_der)
{
    uint8_t *digest = arena_alloc(x->arena, SHA256_BYTES);
    if (!digest)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    q->named = s->common_name;
    if (s->pem) {
        enum err e = leaf_read(x, s->pem, ret_der);
        if (!e && digest_sha256(*ret_der, digest))
            e = fault_set(&x->fault, FAULT_INTERNAL, "no digest");
        if (e)
            return e;
    } else if (!s->fingerprint) {
        return ERR_OK;
    } else if (text_parse_hex(s->fingerprint, digest, SHA256_BYTES)) {
        return malformed(x, "cert_fingerprint is no SHA-256 in hexadecimal");
    }
    q->fingerprint = bytes_of(digest, SHA256_BYTES);
    return ERR_OK;
}

static enum err action_parse(struct exchange *x, const struct broker_said *s,
                             struct broker_question *q)
{
    const char *a = s->action ? s->action : "";
    if (strcmp(a, "publish") == 0 || strcmp(a, "2") == 0)
        q->action = POLICY_PUBLISH;
    else if (strcmp(a, "subscribe") == 0 || strcmp(a, "1") == 0)
        q->action = POLICY_SUBSCRIBE;
    else
        return malformed(x, "action must be publish or subscribe");
    q->resource = s->topic;
    q->retain = s->retain && (strcmp(s->retain, "true") == 0 || strcmp(s->retain, "1") == 0);
    return s->topic ? ERR_OK : malformed(x, "topic is missing");
}

/* EMQX takes 4xx for "I do not know": a denial is 200. NanoMQ goes by the status. The attribute is
 * for the broker to send with what it asks later. */
static enum err reply(struct exchange *x, bool form, bool connects, const struct broker_verdict *v)
{
    if (form) {
        exchange_reply(x, v->allowed ? 200 : 403, "text/plain",
                       bytes_text(v->allowed ? "allow\n" : "deny\n"));
        return ERR_OK;
    }
    if (!v->allowed || !connects)
        return admin_reply(x, 200,
                           v->allowed ? "{\"result\":\"allow\",\"is_superuser\":false}"
                                      : "{\"result\":\"deny\",\"is_superuser\":false}");
    const char *hex = text_hex(x->arena, v->fingerprint);
    const char *text = !hex ? NULL
                            : arena_printf(x->arena,
                                           "{\"result\":\"allow\",\"is_superuser\":false,"
                                           "\"client_attrs\":{\"cert_fingerprint\":\"%s\"}}",
                                           hex);
    return text ? admin_reply(x, 200, text) : fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
}

/* A certificate that came whole and that nobody knows is one of a first contact; what product it
 * will be is not known, so a token of one product has no such. */
static enum err connect_ask(struct service *service, struct exchange *x,
                            const struct broker_question *q, const struct admit_contact *contact,
                            struct broker_verdict *ret_verdict)
{
    struct enrol_seen seen;
    enum err e = broker_question_ask(service->db, x->arena, q, ret_verdict);
    if (!e && ret_verdict->unknown && q->product_id == 0 && contact->leaf.len > 0) {
        admit_unknown(service, contact, x->arena);
        e = broker_question_ask(service->db, x->arena, q, ret_verdict);
    }
    if (!e && ret_verdict->allowed && ret_verdict->unused)
        e = enrol_seen_record(service->db, ret_verdict->fingerprint, "broker", x->request_id,
                              contact->source, x->arena, &seen);
    return e;
}

static enum err answer(struct service *service, struct exchange *x, bool connects)
{
    bool form = exchange_type_is(x, "application/x-www-form-urlencoded");
    struct broker_said s;
    const struct admin_session *session = x->adapter;
    struct broker_question q = {.action = POLICY_CONNECT, .product_id = session->op.product_id};
    struct bytes der = {0};
    struct broker_verdict v;
    enum err e = broker_said_read(x, form, &s);
    if (!e)
        e = certificate_find(x, &s, &q, &der);
    if (!e && !connects)
        e = action_parse(x, &s, &q);
    if (e)
        return e;
    q.client_id = s.client_id;
    const struct admit_contact contact = {.request_id = x->request_id,
                                          .since_us = x->since_us,
                                          .source = s.source ? s.source : x->source,
                                          .client_id = s.client_id,
                                          .leaf = der};
    e = connects ? connect_ask(service, x, &q, &contact, &v)
                 : broker_question_ask(service->db, x->arena, &q, &v);
    return e ? fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "%s", err_name(e))
             : reply(x, form, connects, &v);
}

enum err broker_auth_handle(struct service *service, struct exchange *x)
{
    return answer(service, x, true);
}

enum err broker_acl_handle(struct service *service, struct exchange *x)
{
    return answer(service, x, false);
}
