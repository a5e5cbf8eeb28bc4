/*
 * Writing JSON into a struct buf, for the log and for parameters of SQL calls. Commas are
 * placed by the writer. Peer-supplied text is always escaped; bytes that are not UTF-8 become
 * U+FFFD. Threads: owner only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

void json_begin_object(struct buf *b);
void json_end_object(struct buf *b);
void json_begin_array(struct buf *b);
void json_end_array(struct buf *b);

/* A member of the open object; NULL writes null. */
void json_text(struct buf *b, const char *key, const char *value);
void json_int(struct buf *b, const char *key, int64_t value);
void json_bool(struct buf *b, const char *key, bool value);
/* Lower-case hexadecimal; a NULL data pointer writes null. */
void json_hex(struct buf *b, const char *key, struct bytes value);
/* With padding, RFC 4648 4. */
void json_base64(struct buf *b, const char *key, struct bytes value);
/* value is JSON already; NULL writes null. */
void json_raw(struct buf *b, const char *key, const char *value);
/* Opens an array or object as a member. */
void json_key(struct buf *b, const char *key);
/* An element of the open array. */
void json_item_text(struct buf *b, const char *value);
