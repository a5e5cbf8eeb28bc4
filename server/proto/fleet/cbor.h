/* The CBOR half of payload.h (RFC 8949): maps of text strings, definite or not. Threads: any. */
#pragma once

#include <jansson.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"

/* ERR_INVALID with a constant that says why. The caller frees. */
enum err cbor_read(struct bytes in, json_t **ret_object, const char **ret_why) MUST_CHECK;

/* Appends; what does not fit marks the buffer. Object members that are neither text, whole number
 * nor object are a bug. */
void cbor_write(struct buf *b, const json_t *object);
