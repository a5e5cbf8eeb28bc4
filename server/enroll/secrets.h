/*
 * Symmetric keys of enrollments: how they are sealed, how a group's devices have theirs, and what
 * is signed with them. Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/secret.h"

struct sealer;

enum { SECRETS_MIN_KEY_BYTES = 16, SECRETS_MAX_KEY_BYTES = 64, SECRETS_MAX_PLACE_BYTES = 192 };
enum secrets_slot { SECRETS_PRIMARY, SECRETS_SECONDARY };

/* What the slot of an enrollment is called when it is sealed. */
void secrets_place(struct buf *b, bool grouped, const char *name_lower, enum secrets_slot slot);

/* The key of one device of a group: HMAC-SHA256 of its registration id under the group's key. */
enum err secrets_derive(struct bytes master, const char *registration_id,
                        uint8_t ret_key[SHA256_BYTES]) MUST_CHECK;

/* Whether signature is the HMAC-SHA256 of text under key; in constant time. */
bool secrets_signed(struct bytes key, struct bytes text, struct bytes signature);
