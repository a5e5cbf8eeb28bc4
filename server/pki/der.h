/* Writing and reading DER (X.690), for the few structures that are quicker by hand. For pki/
 * only. Threads: owner only. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"

enum der_tag {
    DER_NOTHING = 0, /* no element: what der_peek says at the end */
    DER_BOOLEAN = 0x01,
    DER_INTEGER = 0x02,
    DER_BIT_STRING = 0x03,
    DER_OCTET_STRING = 0x04,
    DER_NULL = 0x05,
    DER_OID = 0x06,
    DER_ENUMERATED = 0x0a,
    DER_UTF8_STRING = 0x0c,
    DER_PRINTABLE_STRING = 0x13,
    DER_IA5_STRING = 0x16,
    DER_UTC_TIME = 0x17,
    DER_GENERALIZED_TIME = 0x18,
    DER_SEQUENCE = 0x30,
    DER_SET = 0x31,
    DER_NAME_EMAIL = 0x81, /* the GeneralNames of RFC 5280 4.2.1.6 that are plain strings */
    DER_NAME_DNS = 0x82,
    DER_NAME_URI = 0x86,
    DER_NAME_IP = 0x87,
    DER_CONTEXT_0 = 0xa0, /* constructed, [0] */
    DER_CONTEXT_1 = 0xa1,
    DER_CONTEXT_3 = 0xa3,
};

/* Tag and length of an element of len bytes, which the caller adds. */
void der_header(struct buf *b, enum der_tag tag, size_t len);

/* Length of an element with its header. */
size_t der_size(size_t len);

/* An element around what inner holds. */
void der_wrap(struct buf *b, enum der_tag tag, const struct buf *inner);

/* An element with this content. */
void der_add(struct buf *b, enum der_tag tag, struct bytes content);

/* A non-negative number. */
void der_integer(struct buf *b, unsigned value);

/* An object identifier in dotted text, known to be right. */
enum err der_oid(struct buf *b, const char *dotted) MUST_CHECK;

/* A moment as RFC 5280 4.1.2.5 writes it: UTCTime through 2049. ERR_INVALID past the year 9999
 * and before 1950. */
enum err der_time(struct buf *b, int64_t wall_s) MUST_CHECK;

/* Reads elements one after another. A read that fails marks the reader as broken and gives
 * nothing, as do all after it, so that a caller may check once, at the end. */
struct der_reader {
    struct bytes rest;
    bool broken;
};

static inline struct der_reader der_read(struct bytes content)
{
    return (struct der_reader){.rest = content};
}

/* Tag of the next element; DER_NOTHING at the end and once broken. */
enum der_tag der_peek(const struct der_reader *r);

/* Content of the next element, which must have this tag, and its length in the shortest form and
 * below 65536. */
struct bytes der_next(struct der_reader *r, enum der_tag tag);

/* The same with its header. */
struct bytes der_next_whole(struct der_reader *r, enum der_tag tag);

/* Whether everything was read and nothing failed. */
bool der_ended(const struct der_reader *r);
