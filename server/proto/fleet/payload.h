/*
 * Payloads of fleet provisioning, in JSON (RFC 8259) or CBOR (RFC 8949), as one kind of object: its
 * members are texts, whole numbers or objects of texts. For proto/fleet and its tests. Threads:
 * any.
 */
#pragma once

#include <jansson.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "model/fault.h"
#include "proto/fleet/fleet.h"

/* No bytes at all are an empty object: that is how clients ask for keys. A member of another kind
 * is taken where JSON has it, and refused where CBOR does. Fault: request.malformed. The caller
 * frees. */
enum err payload_decode(enum fleet_format format, struct bytes in, json_t **ret_object,
                        struct fault *fault) MUST_CHECK;

/* Into the arena; ERR_NO_MEMORY. */
enum err payload_encode(enum fleet_format format, const json_t *object, struct arena *arena,
                        struct bytes *ret_out) MUST_CHECK;
