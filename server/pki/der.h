/* Writing DER (X.690) into a buffer, for the few structures that are quicker by hand. For pki/
 * only. Threads: owner only. */
#pragma once

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"

enum der_tag {
    DER_INTEGER = 0x02,
    DER_BIT_STRING = 0x03,
    DER_OCTET_STRING = 0x04,
    DER_NULL = 0x05,
    DER_SEQUENCE = 0x30,
    DER_SET = 0x31,
    DER_CONTEXT_0 = 0xa0, /* constructed, [0] */
    DER_CONTEXT_1 = 0xa1,
};

/* Tag and length of an element of len bytes, which the caller adds. */
void der_header(struct buf *b, enum der_tag tag, size_t len);

/* Length of an element with its header. */
size_t der_size(size_t len);

/* An element around what inner holds. */
void der_wrap(struct buf *b, enum der_tag tag, const struct buf *inner);

/* A non-negative number. */
void der_integer(struct buf *b, unsigned value);

/* An object identifier in dotted text, known to be right. */
enum err der_oid(struct buf *b, const char *dotted) MUST_CHECK;
