#include <string.h>

#include "broker/grant.h"
#include "broker/plugin.h"
#include "broker/post.h"
#include "broker/topics.h"
#include "model/topic_rules.h"

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

/* Without policies: what is below its own name. */
static bool own_topics_may(const struct mosquitto_evt_acl_check *ev, const struct identity *who)
{
    return topic_is_of_thing(ev->topic, who->thing);
}

static bool policies_may(const struct plugin *p, const struct mosquitto_evt_acl_check *ev,
                         const struct identity *who)
{
    const char *filter = ev->topic;
    switch (ev->access) {
    case MOSQ_ACL_WRITE:
        return grant_allows(p, ev->client, who, POLICY_PUBLISH, ev->topic) &&
               (!ev->retain || grant_allows(p, ev->client, who, POLICY_RETAIN, ev->topic));
    case MOSQ_ACL_READ:
        return grant_allows(p, ev->client, who, POLICY_RECEIVE, ev->topic);
    case MOSQ_ACL_SUBSCRIBE:
        return topic_shared_filter(&filter) &&
               grant_allows(p, ev->client, who, POLICY_SUBSCRIBE, filter);
    default:
        return false;
    }
}

/* Some topics are no device's, whatever a policy says. */
static bool device_may(const struct plugin *p, const struct mosquitto_evt_acl_check *ev,
                       const struct identity *who)
{
    bool write = ev->access == MOSQ_ACL_WRITE;
    if (ev->access != MOSQ_ACL_SUBSCRIBE && topic_is_reserved(ev->topic, write))
        return false;
    return who->grants.len > 0 ? policies_may(p, ev, who) : own_topics_may(ev, who);
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
        return device_may(p, ev, &who);
    case WHO_SERVICE:
        return service_may(p, ev);
    }
    return false;
}

int acl_check(struct plugin *p, struct mosquitto_evt_acl_check *ev)
{
    return may(p, ev) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_ACL_DENIED;
}
