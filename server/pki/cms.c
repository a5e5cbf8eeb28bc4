/* Certs-only CMS, written by hand: wrapping bytes that were just signed needs no decoding of them.
 */
#include "base/buf.h"
#include "pki/cert.h"
#include "pki/der.h"

enum { MAX_CMS_BYTES = 64 * CERT_MAX_BYTES };

static const uint8_t oid_signed_data[] = {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                          0xf7, 0x0d, 0x01, 0x07, 0x02};
static const uint8_t oid_data[] = {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                   0xf7, 0x0d, 0x01, 0x07, 0x01};

static void signed_data_add(struct buf *b, const struct bytes *certs, size_t count,
                            size_t certs_len)
{
    static const uint8_t version_1[] = {DER_INTEGER, 1, 1};
    static const uint8_t empty_set[] = {DER_SET, 0};
    buf_add(b, version_1, sizeof(version_1));
    buf_add(b, empty_set, sizeof(empty_set)); /* digestAlgorithms */
    der_header(b, DER_SEQUENCE, sizeof(oid_data));
    buf_add(b, oid_data, sizeof(oid_data));
    der_header(b, DER_CONTEXT_0, certs_len);
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
    size_t inner_len = 3 + 2 + der_size(sizeof(oid_data)) + der_size(certs_len) + 2;
    size_t signed_len = der_size(inner_len);
    der_header(&b, DER_SEQUENCE, sizeof(oid_signed_data) + der_size(signed_len));
    buf_add(&b, oid_signed_data, sizeof(oid_signed_data));
    der_header(&b, DER_CONTEXT_0, signed_len);
    der_header(&b, DER_SEQUENCE, inner_len);
    signed_data_add(&b, certs, count, certs_len);
    void *copy = b.overflow ? NULL : arena_copy(arena, b.data, b.len);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret_der = bytes_of(copy, b.len);
    return ERR_OK;
}
