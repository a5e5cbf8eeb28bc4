#include <string.h>

#include "broker/plugin.h"
#include "broker/post.h"
#include "broker/topics.h"

/* Requests only, as AWS takes them; a copy of each goes to musterd, this one to nobody. */
static bool claim_may_write(const struct mosquitto_evt_acl_check *ev)
{
    return topic_is_request(ev->topic) && !ev->retain && ev->qos <= 1 &&
           ev->payloadlen <= WIRE_MAX_REQUEST_BYTES;
}

static bool claim_may(struct plugin *p, const struct mosquitto_evt_acl_check *ev,
                      const struct identity *who)
{
    bool may = false;
    if (ev->access == MOSQ_ACL_WRITE) {
        may = claim_may_write(ev);
        if (!may)
            post_denied(p, ev->client, who, "publish", ev->topic);
    } else if (ev->access == MOSQ_ACL_SUBSCRIBE) {
        may = topic_is_answer(ev->topic);
        if (!may)
            post_denied(p, ev->client, who, "subscribe", ev->topic);
    }
    return may;
}

static bool service_may(struct plugin *p, const struct mosquitto_evt_acl_check *ev)
{
    static const char *const subscriptions[] = {
        WIRE_REQUEST_SUBSCRIPTION, WIRE_DENIED_SUBSCRIPTION, WIRE_SEEN_SUBSCRIPTION,
        WIRE_UNKNOWN_SUBSCRIPTION, WIRE_GATE_TOPIC,
    };
    if (ev->access == MOSQ_ACL_WRITE)
        return strcmp(ev->topic, WIRE_CONTROL_TOPIC) == 0;
    if (ev->access == MOSQ_ACL_READ)
        return strncmp(ev->topic, WIRE_TOPIC_PREFIX, sizeof(WIRE_TOPIC_PREFIX) - 1) == 0;
    for (size_t i = 0; i < sizeof(subscriptions) / sizeof(subscriptions[0]); i++) {
        if (ev->access == MOSQ_ACL_SUBSCRIBE && strcmp(ev->topic, subscriptions[i]) == 0) {
            p->status_us = 0; /* who subscribes is told with the next tick */
            return true;
        }
    }
    return false;
}

static bool may(struct plugin *p, const struct mosquitto_evt_acl_check *ev)
{
    struct identity who;
    identity_of_client(p, ev->client, &who);
    if (ev->access == MOSQ_ACL_UNSUBSCRIBE)
        return who.who != WHO_NOBODY;
    switch (who.who) {
    case WHO_NOBODY:
        return false;
    case WHO_CLAIM:
        return claim_may(p, ev, &who);
    case WHO_DEVICE:
        return topic_is_of_thing(ev->topic, who.thing);
    case WHO_SERVICE:
        return service_may(p, ev);
    }
    return false;
}

int acl_check(struct plugin *p, struct mosquitto_evt_acl_check *ev)
{
    return may(p, ev) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_ACL_DENIED;
}
