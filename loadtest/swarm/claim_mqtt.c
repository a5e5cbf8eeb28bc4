#include "claim.h"

#include <stdio.h>
#include <string.h>

enum { TOPIC_BYTES = CLAIM_MAX_PATH_BYTES + 16 };

static uint16_t next_id(struct claim *c)
{
    c->packet_id = (uint16_t)(c->packet_id + 1);
    return c->packet_id;
}

/* To hear the answers comes before the question. */
static void subscribe(struct claim *c)
{
    char accepted[TOPIC_BYTES], rejected[TOPIC_BYTES];
    const char *const topics[] = {accepted, rejected};
    if (c->step == CLAIM_CREATE)
        snprintf(c->path, sizeof(c->path), "$aws/certificates/create-from-csr/json");
    else
        snprintf(c->path, sizeof(c->path), "$aws/provisioning-templates/%s/provision/json",
                 c->door->template_name);
    snprintf(accepted, sizeof(accepted), "%s/accepted", c->path);
    snprintf(rejected, sizeof(rejected), "%s/rejected", c->path);
    mqtt_subscribe(&c->session.out, next_id(c), topics, 2);
    session_send(&c->session);
}

static void publish(struct claim *c)
{
    if (claim_body_make(c)) {
        claim_finish(c, CLAIM_FAILED, "out of memory");
        return;
    }
    mqtt_publish(&c->session.out, next_id(c), c->path, buf_bytes(&c->body));
    c->asked = true;
    session_send(&c->session);
}

static void connack_take(struct claim *c, uint8_t code)
{
    char outcome[TALLY_NAME_BYTES];
    snprintf(outcome, sizeof(outcome), "CONNACK %u", code);
    c->handshaken_us = c->session.handshaken_us;
    if (code != 0)
        claim_finish(c, CLAIM_FAILED, outcome);
    else if (c->step == CLAIM_CONNECT)
        claim_finish(c, CLAIM_DONE, "ok");
    else
        subscribe(c);
}

/* Whether a topic is that of the present request with the ending. */
static bool topic_is(const struct claim *c, struct bytes topic, const char *ending)
{
    char own[TOPIC_BYTES];
    snprintf(own, sizeof(own), "%s/%s", c->path, ending);
    return bytes_equal(topic, bytes_text(own));
}

static void answer_take(struct claim *c, const struct mqtt_packet *p)
{
    bool accepted = topic_is(c, p->topic, "accepted");
    if (!c->asked || p->retained || (!accepted && !topic_is(c, p->topic, "rejected"))) {
        claim_finish(c, CLAIM_REFUSED, "an answer that was not asked for");
        return;
    }
    if (p->qos > 0)
        mqtt_puback(&c->session.out, p->id);
    if (!accepted) {
        claim_reject(c, 0, p->payload);
        return;
    }
    const char *why = claim_take(c, p->payload);
    if (why)
        claim_finish(c, CLAIM_REFUSED, why);
    else if (c->step == CLAIM_HELD)
        claim_finish(c, CLAIM_DONE, "ok");
    else
        subscribe(c);
}

static void came(struct session *s, const struct mqtt_packet *p)
{
    struct claim *c = s->owner;
    bool first = c->handshaken_us == 0;
    if (p->type == MQTT_CONNACK && first)
        connack_take(c, p->code);
    else if (p->type == MQTT_SUBACK && !first && !c->asked && p->id == c->packet_id &&
             p->code == MQTT_FAILURE)
        claim_finish(c, CLAIM_FAILED, "subscription refused");
    else if (p->type == MQTT_SUBACK && !first && !c->asked && p->id == c->packet_id)
        publish(c);
    else if (p->type == MQTT_PUBLISH && !first)
        answer_take(c, p);
    else if (p->type != MQTT_PUBACK || first)
        claim_finish(c, CLAIM_FAILED, "not MQTT");
}

static void ended(struct session *s, enum session_end end)
{
    static const char *const ends[] = {"connection closed", "no answer", "not MQTT"};
    struct claim *c = s->owner;
    const char *outcome = ends[end];
    if (s->stage == SESSION_CONNECT)
        outcome = "connection refused";
    else if (s->stage == SESSION_HANDSHAKE)
        outcome = "handshake failed";
    claim_finish(c, CLAIM_FAILED, outcome);
}

enum err claim_mqtt_start(struct claim *c)
{
    bool own = c->step == CLAIM_CONNECT;
    c->packet_id = 0;
    c->session = (struct session){
        .target = c->target,
        .certificate = own ? c->cert : c->door->certificate,
        .key = own ? c->key : c->door->key,
        .client_id = own ? c->thing : c->serial,
        .came = came,
        .ended = ended,
        .owner = c,
    };
    return session_open(&c->session);
}
