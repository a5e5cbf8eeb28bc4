#include "pki/csrattrs.h"

#include "base/cleanup.h"
#include "pki/der.h"

enum { MAX_ATTRIBUTES_BYTES = 1024 };

#define OID_CHALLENGE_PASSWORD "1.2.840.113549.1.9.7"
#define OID_EST_IDENTITY_LINKING "1.2.840.113549.1.9.16.2.58"
#define OID_SERIAL_NUMBER "2.5.4.5"
#define OID_EC "1.2.840.10045.2.1"
#define OID_RSA "1.2.840.113549.1.1.1"

/* In order of preference: small and fast first. */
static const struct {
    enum key_kind kind;
    const char *algorithm;
    const char *curve;     /* EC only */
    unsigned bits;         /* RSA only */
    const char *signature; /* NULL: the algorithm says it */
} kinds[] = {
    {KEY_P256, OID_EC, "1.2.840.10045.3.1.7", 0, "1.2.840.10045.4.3.2"},
    {KEY_P384, OID_EC, "1.3.132.0.34", 0, "1.2.840.10045.4.3.3"},
    {KEY_ED25519, "1.3.101.112", NULL, 0, NULL},
    {KEY_RSA2048, OID_RSA, NULL, 2048, "1.2.840.113549.1.1.11"},
    {KEY_RSA3072, OID_RSA, NULL, 3072, "1.2.840.113549.1.1.11"},
    {KEY_RSA4096, OID_RSA, NULL, 4096, "1.2.840.113549.1.1.11"},
};

/* Attribute { type algorithm, values { curve or bits } }, or the bare algorithm. */
static enum err key_add(struct buf *b, size_t k)
{
    _cleanup_(buf_donep) struct buf values = {0};
    _cleanup_(buf_donep) struct buf attribute = {0};
    if (!kinds[k].curve && kinds[k].bits == 0)
        return der_oid(b, kinds[k].algorithm);
    buf_init(&values, MAX_ATTRIBUTES_BYTES);
    buf_init(&attribute, MAX_ATTRIBUTES_BYTES);
    enum err e = der_oid(&attribute, kinds[k].algorithm);
    if (!e && kinds[k].curve)
        e = der_oid(&values, kinds[k].curve);
    else if (!e)
        der_integer(&values, kinds[k].bits);
    der_wrap(&attribute, DER_SET, &values);
    der_wrap(b, DER_SEQUENCE, &attribute);
    return e;
}

static enum err keys_add(struct buf *b, unsigned keys)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        if (!(keys & kinds[k].kind))
            continue;
        enum err e = key_add(b, k);
        return e || !kinds[k].signature ? e : der_oid(b, kinds[k].signature);
    }
    return ERR_OK;
}

enum err csrattrs_encode(struct arena *arena, const struct csrattrs_request *rq,
                         struct bytes *ret_der)
{
    _cleanup_(buf_donep) struct buf inner = {0};
    _cleanup_(buf_donep) struct buf outer = {0};
    buf_init(&inner, MAX_ATTRIBUTES_BYTES);
    buf_init(&outer, MAX_ATTRIBUTES_BYTES);
    enum err e = rq->pop ? der_oid(&inner, OID_CHALLENGE_PASSWORD) : ERR_OK;
    if (!e && rq->pop)
        e = der_oid(&inner, OID_EST_IDENTITY_LINKING);
    if (!e && rq->serial_number)
        e = der_oid(&inner, OID_SERIAL_NUMBER);
    if (!e)
        e = keys_add(&inner, rq->keys);
    if (e)
        return e;
    der_wrap(&outer, DER_SEQUENCE, &inner);
    void *copy = outer.overflow ? NULL : arena_copy(arena, outer.data, outer.len);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret_der = bytes_of(copy, outer.len);
    return ERR_OK;
}
