#include "pki/extension.h"

#include <string.h>

#include "base/cleanup.h"
#include "pki/cert.h"
#include "pki/der.h"

void extension_add(struct buf *b, uint8_t last, bool critical, struct bytes value)
{
    static const uint8_t yes[] = {DER_BOOLEAN, 1, 0xff};
    const uint8_t oid[] = {DER_OID, 3, 0x55, 0x1d, last};
    der_header(b, DER_SEQUENCE, sizeof(oid) + (critical ? sizeof(yes) : 0) + der_size(value.len));
    buf_add(b, oid, sizeof(oid));
    if (critical)
        buf_add(b, yes, sizeof(yes));
    der_add(b, DER_OCTET_STRING, value);
}

void extension_point_name(struct buf *b, const char *url)
{
    struct bytes text = bytes_text(url);
    size_t name = der_size(text.len), full_name = der_size(name);
    der_header(b, DER_CONTEXT_0, full_name);
    der_header(b, DER_CONTEXT_0, name);
    der_add(b, DER_NAME_URI, text);
}

void extension_points(struct buf *b, const char *const *urls, size_t count)
{
    _cleanup_(buf_donep) struct buf points = {0};
    buf_init(&points, CERT_MAX_BYTES);
    for (size_t i = 0; i < count; i++) {
        _cleanup_(buf_donep) struct buf point = {0};
        buf_init(&point, CERT_MAX_BYTES);
        extension_point_name(&point, urls[i]);
        der_wrap(&points, DER_SEQUENCE, &point);
    }
    der_wrap(b, DER_SEQUENCE, &points);
}
