#include "pki/csrattrs.h"

#include "base/cleanup.h"
#include "pki/der.h"

enum { MAX_ATTRIBUTES_BYTES = 4096, MAX_RSA_BYTES = 512, EXPONENT = 65537 };

#define OID_CHALLENGE_PASSWORD "1.2.840.113549.1.9.7"
#define OID_EXTENSION_REQUEST "1.2.840.113549.1.9.14"
#define OID_EST_IDENTITY_LINKING "1.2.840.113549.1.9.16.2.58"
#define OID_REQUEST_TEMPLATE "1.2.840.113549.1.9.16.2.61"
#define OID_EXTENSION_TEMPLATE "1.2.840.113549.1.9.16.2.62"
#define OID_COMMON_NAME "2.5.4.3"
#define OID_SERIAL_NUMBER "2.5.4.5"
#define OID_SUBJECT_ALT_NAME "2.5.29.17"
#define OID_EXTENDED_KEY_USAGE "2.5.29.37"
#define OID_EC "1.2.840.10045.2.1"
#define OID_RSA "1.2.840.113549.1.1.1"

/* In order of preference: small and fast first. */
static const struct kind {
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

static const struct kind *kind_prefer(unsigned keys)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        if (keys & kinds[k].kind)
            return &kinds[k];
    }
    return NULL;
}

/* Attribute { type, SET { values } }; values NULL: an empty set. */
static enum err attribute_add(struct buf *b, const char *type, const struct buf *values)
{
    static const struct buf none = {0};
    _cleanup_(buf_donep) struct buf inner = {0};
    buf_init(&inner, MAX_ATTRIBUTES_BYTES);
    enum err e = der_oid(&inner, type);
    der_wrap(&inner, DER_SET, values ? values : &none);
    der_wrap(b, DER_SEQUENCE, &inner);
    return e;
}

/* The algorithm as an attribute with its curve or size, or bare where it says everything. */
static enum err key_add(struct buf *b, const struct kind *k)
{
    _cleanup_(buf_donep) struct buf values = {0};
    if (!k->curve && k->bits == 0)
        return der_oid(b, k->algorithm);
    buf_init(&values, MAX_ATTRIBUTES_BYTES);
    enum err e = ERR_OK;
    if (k->curve)
        e = der_oid(&values, k->curve);
    else
        der_integer(&values, k->bits);
    return e ? e : attribute_add(b, k->algorithm, &values);
}

static enum err usages_add(struct buf *b, unsigned eku)
{
    static const struct {
        enum eku bit;
        const char *oid;
    } usages[] = {{EKU_CLIENT_AUTH, "1.3.6.1.5.5.7.3.2"},
                  {EKU_SERVER_AUTH, "1.3.6.1.5.5.7.3.1"},
                  {EKU_CMC_RA, "1.3.6.1.5.5.7.3.28"}};
    enum err e = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(usages) && !e; i++) {
        if (eku & usages[i].bit)
            e = der_oid(b, usages[i].oid);
    }
    return e;
}

/* Extension { extnID, extnValue OCTET STRING { SEQUENCE of usages } } */
static enum err eku_add(struct buf *b, unsigned eku)
{
    _cleanup_(buf_donep) struct buf usages = {0};
    _cleanup_(buf_donep) struct buf value = {0};
    _cleanup_(buf_donep) struct buf extension = {0};
    if (eku == 0)
        return ERR_OK;
    buf_init(&usages, MAX_ATTRIBUTES_BYTES);
    buf_init(&value, MAX_ATTRIBUTES_BYTES);
    buf_init(&extension, MAX_ATTRIBUTES_BYTES);
    enum err e = usages_add(&usages, eku);
    der_wrap(&value, DER_SEQUENCE, &usages);
    if (!e)
        e = der_oid(&extension, OID_EXTENDED_KEY_USAGE);
    der_wrap(&extension, DER_OCTET_STRING, &value);
    der_wrap(b, DER_SEQUENCE, &extension);
    return e;
}

/* ExtensionTemplate without a value: the client fills it in. */
static enum err san_add(struct buf *b)
{
    _cleanup_(buf_donep) struct buf extension = {0};
    buf_init(&extension, MAX_ATTRIBUTES_BYTES);
    enum err e = der_oid(&extension, OID_SUBJECT_ALT_NAME);
    der_wrap(b, DER_SEQUENCE, &extension);
    return e;
}

/* All extensions wanted, in one attribute. open: with those whose value is the client's to fill
 * in, which only a template may ask for, under a type of its own (RFC 9908 3.4). */
static enum err extensions_add(struct buf *b, const struct csrattrs_request *rq, bool open)
{
    _cleanup_(buf_donep) struct buf extensions = {0};
    _cleanup_(buf_donep) struct buf values = {0};
    buf_init(&extensions, MAX_ATTRIBUTES_BYTES);
    buf_init(&values, MAX_ATTRIBUTES_BYTES);
    enum err e = eku_add(&extensions, rq->eku);
    if (!e && open)
        e = san_add(&extensions);
    if (e || extensions.len == 0)
        return e;
    der_wrap(&values, DER_SEQUENCE, &extensions);
    return attribute_add(b, open ? OID_EXTENSION_TEMPLATE : OID_EXTENSION_REQUEST, &values);
}

/* NameTemplate of one attribute without a value. */
static enum err subject_add(struct buf *b, const char *type)
{
    _cleanup_(buf_donep) struct buf attribute = {0};
    _cleanup_(buf_donep) struct buf rdn = {0};
    _cleanup_(buf_donep) struct buf name = {0};
    buf_init(&attribute, MAX_ATTRIBUTES_BYTES);
    buf_init(&rdn, MAX_ATTRIBUTES_BYTES);
    buf_init(&name, MAX_ATTRIBUTES_BYTES);
    enum err e = der_oid(&attribute, type);
    der_wrap(&rdn, DER_SEQUENCE, &attribute);
    der_wrap(&name, DER_SET, &rdn);
    der_wrap(b, DER_SEQUENCE, &name);
    return e;
}

/* RFC 9908 3.4: the size of an RSA key is told by a placeholder of that size. */
static void rsa_placeholder_add(struct buf *b, unsigned bits)
{
    _cleanup_(buf_donep) struct buf numbers = {0};
    _cleanup_(buf_donep) struct buf key = {0};
    buf_init(&numbers, MAX_ATTRIBUTES_BYTES);
    buf_init(&key, MAX_ATTRIBUTES_BYTES);
    der_header(&numbers, DER_INTEGER, bits / 8 + 1);
    buf_add_char(&numbers, 0);
    for (unsigned i = 0; i < bits / 8 && i < MAX_RSA_BYTES; i++)
        buf_add_char(&numbers, (char)0xff);
    der_integer(&numbers, EXPONENT);
    buf_add_char(&key, 0); /* unused bits */
    der_wrap(&key, DER_SEQUENCE, &numbers);
    der_wrap(b, DER_BIT_STRING, &key);
}

/* SubjectPublicKeyInfoTemplate */
static enum err key_info_add(struct buf *b, const struct kind *k)
{
    _cleanup_(buf_donep) struct buf algorithm = {0};
    _cleanup_(buf_donep) struct buf info = {0};
    static const struct buf none = {0};
    buf_init(&algorithm, MAX_ATTRIBUTES_BYTES);
    buf_init(&info, MAX_ATTRIBUTES_BYTES);
    enum err e = der_oid(&algorithm, k->algorithm);
    if (!e && k->curve)
        e = der_oid(&algorithm, k->curve);
    if (k->bits > 0)
        der_wrap(&algorithm, DER_NULL, &none);
    der_wrap(&info, DER_SEQUENCE, &algorithm);
    if (k->bits > 0)
        rsa_placeholder_add(&info, k->bits);
    der_wrap(b, DER_CONTEXT_0, &info);
    return e;
}

static enum err template_attributes_add(struct buf *b, const struct csrattrs_request *rq)
{
    _cleanup_(buf_donep) struct buf attributes = {0};
    buf_init(&attributes, MAX_ATTRIBUTES_BYTES);
    enum err e = rq->pop ? attribute_add(&attributes, OID_CHALLENGE_PASSWORD, NULL) : ERR_OK;
    if (!e)
        e = extensions_add(&attributes, rq, rq->serial == CSRATTRS_SAN);
    der_wrap(b, DER_CONTEXT_1, &attributes);
    return e;
}

/* CertificationRequestInfoTemplate, version v1 (RFC 9908 section 3.4). */
static enum err template_add(struct buf *b, const struct csrattrs_request *rq)
{
    const struct kind *k = kind_prefer(rq->keys);
    _cleanup_(buf_donep) struct buf info = {0};
    _cleanup_(buf_donep) struct buf values = {0};
    buf_init(&info, MAX_ATTRIBUTES_BYTES);
    buf_init(&values, MAX_ATTRIBUTES_BYTES);
    der_integer(&info, 0);
    enum err e = ERR_OK;
    if (rq->serial != CSRATTRS_SAN)
        e = subject_add(&info, rq->serial == CSRATTRS_CN ? OID_COMMON_NAME : OID_SERIAL_NUMBER);
    if (!e && k)
        e = key_info_add(&info, k);
    if (!e)
        e = template_attributes_add(&info, rq);
    der_wrap(&values, DER_SEQUENCE, &info);
    return e ? e : attribute_add(b, OID_REQUEST_TEMPLATE, &values);
}

/* RFC 7030 4.5.2: bare identifiers and attributes with values. */
static enum err plain_add(struct buf *b, const struct csrattrs_request *rq)
{
    static const char *const names[] = {OID_COMMON_NAME, OID_SERIAL_NUMBER, OID_SUBJECT_ALT_NAME};
    const struct kind *k = kind_prefer(rq->keys);
    enum err e = rq->pop ? der_oid(b, OID_CHALLENGE_PASSWORD) : ERR_OK;
    if (!e && rq->pop)
        e = der_oid(b, OID_EST_IDENTITY_LINKING);
    if (!e)
        e = der_oid(b, names[rq->serial]);
    if (!e)
        e = extensions_add(b, rq, false);
    if (!e && k)
        e = key_add(b, k);
    if (!e && k && k->signature)
        e = der_oid(b, k->signature);
    return e;
}

enum err csrattrs_encode(struct arena *arena, const struct csrattrs_request *rq,
                         struct bytes *ret_der)
{
    _cleanup_(buf_donep) struct buf inner = {0};
    _cleanup_(buf_donep) struct buf outer = {0};
    buf_init(&inner, MAX_ATTRIBUTES_BYTES);
    buf_init(&outer, MAX_ATTRIBUTES_BYTES);
    enum err e = plain_add(&inner, rq);
    if (!e)
        e = template_add(&inner, rq);
    if (e)
        return e;
    der_wrap(&outer, DER_SEQUENCE, &inner);
    void *copy = outer.overflow ? NULL : arena_copy(arena, outer.data, outer.len);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret_der = bytes_of(copy, outer.len);
    return ERR_OK;
}
