/* Certs-only CMS, written by hand: wrapping bytes that were just signed needs no decoding of them.
 */
#include <string.h>

#include "base/buf.h"
#include "pki/cert.h"

enum {
    DER_INTEGER = 0x02,
    DER_SEQUENCE = 0x30,
    DER_SET = 0x31,
    DER_CONTEXT_0 = 0xa0, /* constructed, [0] */
    MAX_LENGTH_BYTES = 5,
    MAX_CMS_BYTES = 64 * CERT_MAX_BYTES,
};

static const uint8_t oid_signed_data[] = {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                          0xf7, 0x0d, 0x01, 0x07, 0x02};
static const uint8_t oid_data[] = {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                   0xf7, 0x0d, 0x01, 0x07, 0x01};

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

static void header_add(struct buf *b, uint8_t tag, size_t len)
{
    uint8_t length[MAX_LENGTH_BYTES];
    buf_add_char(b, (char)tag);
    buf_add(b, length, length_encode(len, length));
}

/* Length of an element with its header. */
static size_t element(size_t len)
{
    uint8_t length[MAX_LENGTH_BYTES];
    return 1 + length_encode(len, length) + len;
}

static void signed_data_add(struct buf *b, const struct bytes *certs, size_t count,
                            size_t certs_len)
{
    static const uint8_t version_1[] = {DER_INTEGER, 1, 1};
    static const uint8_t empty_set[] = {DER_SET, 0};
    buf_add(b, version_1, sizeof(version_1));
    buf_add(b, empty_set, sizeof(empty_set)); /* digestAlgorithms */
    header_add(b, DER_SEQUENCE, sizeof(oid_data));
    buf_add(b, oid_data, sizeof(oid_data));
    header_add(b, DER_CONTEXT_0, certs_len);
    for (size_t i = 0; i < count; i++)
        buf_add(b, certs[i].data, certs[i].len);
    buf_add(b, empty_set, sizeof(empty_set)); /* signerInfos */
}

enum err cms_certs_only(struct arena *arena, const struct bytes *certs, size_t count,
                        struct bytes *ret_der)
{
    _cleanup_(buf_donep) struct buf b = {0};
    size_t certs_len = 0;
    buf_init(&b, MAX_CMS_BYTES);
    for (size_t i = 0; i < count; i++)
        certs_len += certs[i].len;
    size_t inner_len = 3 + 2 + element(sizeof(oid_data)) + element(certs_len) + 2;
    size_t signed_len = element(inner_len);
    header_add(&b, DER_SEQUENCE, sizeof(oid_signed_data) + element(signed_len));
    buf_add(&b, oid_signed_data, sizeof(oid_signed_data));
    header_add(&b, DER_CONTEXT_0, signed_len);
    header_add(&b, DER_SEQUENCE, inner_len);
    signed_data_add(&b, certs, count, certs_len);
    void *copy = b.overflow ? NULL : arena_copy(arena, b.data, b.len);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret_der = bytes_of(copy, b.len);
    return ERR_OK;
}
