/*
 * Base64 (RFC 4648 section 4). The decoder takes what real EST clients send: white space
 * anywhere (RFC 8951 section 3.1), and nothing else outside the alphabet. Threads: any.
 */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"

/* Appends base64 on one line, padded, without a line end. */
void base64_encode(struct buf *b, struct bytes in);

/*
 * Decodes into the arena. Padding is required and unused bits must be zero (RFC 4648 3.5), so
 * that a value has one spelling. CR, LF, space and tab are skipped.
 */
enum err base64_decode(struct arena *a, struct bytes in, struct bytes *ret_out) MUST_CHECK;

/* The alphabet for URLs and file names, without padding and white space (RFC 4648 section 5). */
enum err base64url_decode(struct arena *a, struct bytes in, struct bytes *ret_out) MUST_CHECK;
