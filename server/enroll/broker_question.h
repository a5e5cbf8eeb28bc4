/*
 * What another broker asks of a device: the same rules as in Mosquitto's plugin, looked up in the
 * registry (docs/brokers-other.md). Threads: any.
 */
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "model/policy.h"

struct db;

struct broker_question {
    struct bytes fingerprint; /* of the certificate; len 0: not known */
    const char *named;        /* then: its CN, which must be the thing's name */
    int64_t product_id;       /* who asks may know of; 0: all */
    const char *client_id;
    enum policy_action action; /* POLICY_CONNECT: resource is not looked at */
    const char *resource;      /* topic or filter */
    bool retain;
};

struct broker_verdict {
    bool allowed;
    bool unknown;             /* no certificate that may be at a broker */
    bool unused;              /* the certificate was not used before */
    struct bytes fingerprint; /* of the certificate that was found; len 0: none */
};

/* An error only where the registry cannot say. */
enum err broker_question_ask(struct db *db, struct arena *arena, const struct broker_question *q,
                             struct broker_verdict *ret_verdict) MUST_CHECK;
