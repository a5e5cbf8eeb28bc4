/* Small, strict text helpers; ASCII only unless said. Threads: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"

/* Length in bytes of the valid UTF-8 sequence at s (RFC 3629), 0 when s does not start one. */
size_t text_utf8_length(const char *s);

/* Whether all of s is valid UTF-8 without control characters. */
bool text_is_printable_utf8(const char *s);

/* Appends lower-case hexadecimal. */
void text_add_hex(struct buf *b, struct bytes in);

/* Lower-case hexadecimal in the arena; NULL when memory or the arena's bound ran out. */
char *text_hex(struct arena *a, struct bytes in);

/* Exactly ret_len bytes from 2 * ret_len hexadecimal digits, either case; nothing else. */
enum err text_parse_hex(const char *s, uint8_t *ret_data, size_t ret_len) MUST_CHECK;

/* A decimal integer within [min, max]; no blanks, no sign but '-'. */
enum err text_parse_int(const char *s, int64_t min, int64_t max, int64_t *ret_value) MUST_CHECK;

/* A duration: digits followed by s, m, h, d, w or y (365 days); ret in seconds. */
enum err text_parse_duration(const char *s, int64_t max_s, int64_t *ret_seconds) MUST_CHECK;

/* Case-insensitive equality of ASCII text. */
bool text_equal_nocase(const char *a, const char *b);

/* Percent-decodes a URL part (RFC 3986 2.1) in place; a NUL or a broken escape is invalid. */
enum err text_url_decode(char *s) MUST_CHECK;

/* Appends s percent-encoded, all but the unreserved characters (RFC 3986 2.3). */
void text_add_url(struct buf *b, const char *s);
