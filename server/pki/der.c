#include "pki/der.h"

#include <openssl/asn1.h>
#include <openssl/objects.h>

enum { MAX_LENGTH_BYTES = 5, MAX_OID_BYTES = 64 };

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
