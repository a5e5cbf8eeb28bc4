/*
 * What another broker says of a client, in the shapes of EMQX's HTTP authenticator and authoriser
 * (JSON) and of NanoMQ's auth_http (a form); docs/brokers-other.md. Threads: any.
 */
#pragma once

#include "base/err.h"
#include "proto/exchange.h"

/* Texts of the exchange's arena; NULL: not said, or empty. */
struct broker_said {
    const char *client_id, *source;
    const char *pem, *fingerprint, *common_name;
    const char *topic, *action, *retain;
};

/* Members it does not know are left: a broker's template may say more. ERR_DENIED with the fault
 * set when the body does not parse or a member is too long. */
enum err broker_said_read(struct exchange *x, bool form, struct broker_said *ret_said) MUST_CHECK;
