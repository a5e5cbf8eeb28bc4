/*
 * What a device may do by the policies of its certificate. Threads: the broker's only.
 */
#pragma once

#include "broker/plugin.h"
#include "model/policy.h"

/* Whether its policies allow the action on the resource. One that refers to a policy the store does
 * not have may do nothing. */
bool grant_allows(const struct plugin *p, const struct mosquitto *client,
                  const struct identity *who, enum policy_action action, const char *resource);
