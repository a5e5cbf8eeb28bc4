/*
 * Policies of AWS IoT in a compiled form, and what they say of one action (docs/policies.md). The
 * form is made by enroll/policy_compile from the JSON document, travels to the broker's plugin, and
 * is judged there at every connect, publish, subscription and delivery. Nothing is allocated.
 * Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"

enum policy_action {
    POLICY_CONNECT = 1,
    POLICY_PUBLISH = 2,
    POLICY_SUBSCRIBE = 4,
    POLICY_RECEIVE = 8,
    POLICY_RETAIN = 16, /* besides POLICY_PUBLISH, where the message is to be retained */
    POLICY_ALL = 31,
};

enum policy_verdict { POLICY_NO_MATCH, POLICY_ALLOWED, POLICY_DENIED };

enum {
    POLICY_MAX_COMPILED_BYTES = 4096,
    POLICY_MAX_PER_CERTIFICATE = 10,
    POLICY_MAX_NAME_CHARS = 128, /* of a variable */
};

/*
 * The form: POLICY_VERSION, then statements to the end. A statement: effect (1: 0 allow, 1 deny),
 * actions (1), flags (1), number of resources (1) and of conditions (1); resources: type (1),
 * pattern; conditions: operator (1), length and name of a variable (1), number of patterns (1),
 * patterns. A pattern: length (2, big endian), then bytes: characters, or one of POLICY_TOKEN_...;
 * a variable's token is followed by the length (1) and the name.
 */
enum { POLICY_VERSION = 1, POLICY_TOKEN_ANY = 1, POLICY_TOKEN_ONE = 2, POLICY_TOKEN_VARIABLE = 3 };
enum { POLICY_UNJUDGED = 1 /* flag: it says something that is not understood here */ };
enum policy_resource { POLICY_CLIENT = 1, POLICY_TOPIC, POLICY_FILTER, POLICY_ANYTHING };
enum policy_operator {
    POLICY_EQUALS = 1,
    POLICY_LIKE,
    POLICY_NOT_EQUALS,
    POLICY_NOT_LIKE,
};

/* What a variable stands for, e.g. "iot:ClientId"; len 0: not known. Borrowed until the next call.
 */
struct policy_vars {
    struct bytes (*value)(void *arg, const char *name, size_t len);
    void *arg;
};

/* Judges a form that comes from outside, whole. */
bool policy_valid(struct bytes compiled);

/* What one valid policy says; resource is a client id, a topic or a topic filter, by action. Of all
 * policies of a certificate one that denies decides, else one that allows; no match is a denial. A
 * variable without a safe value (policy_value_safe) is never put in: what allows with it does not
 * match, what denies with it stands as if it were a wildcard. */
enum policy_verdict policy_decide(struct bytes compiled, enum policy_action action,
                                  const char *resource, const struct policy_vars *vars);

/* Whether a value may be put in a variable's place: not empty, no + # / and no control characters.
 */
bool policy_value_safe(struct bytes value);

/* Walks the variables that a valid form names; stops and returns true where take does. */
bool policy_each_variable(struct bytes compiled,
                          bool (*take)(void *arg, const char *name, size_t len), void *arg);
