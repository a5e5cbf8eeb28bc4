#include "pki/der.h"

#include <openssl/asn1.h>
#include <openssl/objects.h>
#include <time.h>

enum {
    MAX_LENGTH_BYTES = 5,
    MAX_OID_BYTES = 64,
    MAX_TIME_CHARS = 24,
    MAX_READ_LENGTH_BYTES = 2,
    LONG_FORM = 0x80,
    HIGH_TAG = 0x1f /* tag numbers that go on in further bytes */
};

/* X.690 8.1.3: the shortest form. */
static size_t length_encode(size_t len, uint8_t out[MAX_LENGTH_BYTES])
{
    size_t bytes = 0;
    if (len < 0x80) {
        out[0] = (uint8_t)len;
        return 1;
    }
    for (size_t rest = len; rest > 0; rest >>= 8)
        bytes++;
    out[0] = (uint8_t)(0x80 | bytes);
    for (size_t i = 0; i < bytes; i++)
        out[1 + i] = (uint8_t)(len >> (8 * (bytes - 1 - i)));
    return 1 + bytes;
}

void der_header(struct buf *b, enum der_tag tag, size_t len)
{
    uint8_t length[MAX_LENGTH_BYTES];
    buf_add_char(b, (char)tag);
    buf_add(b, length, length_encode(len, length));
}

size_t der_size(size_t len)
{
    uint8_t length[MAX_LENGTH_BYTES];
    return 1 + length_encode(len, length) + len;
}

void der_wrap(struct buf *b, enum der_tag tag, const struct buf *inner)
{
    der_header(b, tag, inner->len);
    buf_add(b, inner->data, inner->len);
}

void der_add(struct buf *b, enum der_tag tag, struct bytes content)
{
    der_header(b, tag, content.len);
    buf_add(b, content.data, content.len);
}

void der_integer(struct buf *b, unsigned value)
{
    uint8_t bytes[5] = {0, (uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
                        (uint8_t)value};
    size_t skip = 0;
    while (skip < 4 && bytes[skip] == 0 && bytes[skip + 1] < 0x80)
        skip++;
    der_header(b, DER_INTEGER, sizeof(bytes) - skip);
    buf_add(b, bytes + skip, sizeof(bytes) - skip);
}

enum err der_oid(struct buf *b, const char *dotted)
{
    ASN1_OBJECT *object = OBJ_txt2obj(dotted, 1);
    unsigned char der[MAX_OID_BYTES], *at = der;
    int len = object ? i2d_ASN1_OBJECT(object, NULL) : -1;
    if (len > 0 && len <= MAX_OID_BYTES)
        buf_add(b, der, (size_t)i2d_ASN1_OBJECT(object, &at));
    ASN1_OBJECT_free(object);
    return len > 0 && len <= MAX_OID_BYTES ? ERR_OK : ERR_INVALID;
}

enum err der_time(struct buf *b, int64_t wall_s)
{
    char text[MAX_TIME_CHARS];
    struct tm tm;
    time_t t = (time_t)wall_s;
    if (!gmtime_r(&t, &tm) || tm.tm_year < 50 || tm.tm_year > 9999 - 1900)
        return ERR_INVALID;
    bool utc = tm.tm_year < 150;
    const size_t century = utc ? 2 : 0; /* UTCTime has two digits of the year */
    size_t len = strftime(text, sizeof(text), "%Y%m%d%H%M%SZ", &tm);
    der_add(b, utc ? DER_UTC_TIME : DER_GENERALIZED_TIME, bytes_of(text + century, len - century));
    return ERR_OK;
}

enum der_tag der_peek(const struct der_reader *r)
{
    return r->broken || r->rest.len == 0 ? DER_NOTHING : (enum der_tag)r->rest.data[0];
}

/* X.690 10.1: the shortest form, of at most MAX_READ_LENGTH_BYTES behind the first. */
static enum err length_decode(struct bytes from, size_t *ret_len, size_t *ret_used)
{
    if (from.len == 0)
        return ERR_INVALID;
    size_t more = from.data[0] & LONG_FORM ? from.data[0] & (LONG_FORM - 1U) : 0;
    size_t len = from.data[0];
    if (from.data[0] == LONG_FORM || more > MAX_READ_LENGTH_BYTES || more >= from.len)
        return ERR_INVALID;
    for (size_t i = 0; i < more; i++)
        len = (i > 0 ? len << 8 : 0) | from.data[1 + i];
    if ((more == 1 && len < LONG_FORM) || (more == 2 && len < 0x100))
        return ERR_INVALID;
    *ret_len = len;
    *ret_used = 1 + more;
    return ERR_OK;
}

static struct bytes element_take(struct der_reader *r, enum der_tag tag, bool with_header)
{
    size_t len = 0, used = 0;
    struct bytes none = {0}, at = r->rest;
    if (tag == DER_NOTHING || (tag & HIGH_TAG) == HIGH_TAG || der_peek(r) != tag ||
        length_decode(bytes_of(at.data + 1, at.len - 1), &len, &used) || len > at.len - 1 - used) {
        r->broken = true;
        return none;
    }
    size_t header = 1 + used;
    r->rest = bytes_of(at.data + header + len, at.len - header - len);
    return with_header ? bytes_of(at.data, header + len) : bytes_of(at.data + header, len);
}

struct bytes der_next(struct der_reader *r, enum der_tag tag)
{
    return element_take(r, tag, false);
}

struct bytes der_next_whole(struct der_reader *r, enum der_tag tag)
{
    return element_take(r, tag, true);
}

bool der_ended(const struct der_reader *r)
{
    return !r->broken && r->rest.len == 0;
}
