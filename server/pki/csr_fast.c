/* The short way through plain requests for P-256 and P-384 (pki/plain.h). Whatever is not of the
 * usual shape is left to the generic route. */
#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "pki/csr.h"
#include "pki/der.h"
#include "pki/key.h"
#include "pki/plain.h"

enum {
    MAX_RDNS = 16,
    MAX_ATTRIBUTES = 8,
    MAX_EXTENSIONS = 16,
    MAX_NAMES = 32,
    MAX_PART_BYTES = 256,
    MAX_CHALLENGE_BYTES = 255 /* PKCS#9 ub-challenge-password */
};

/* Where the parts of a request stand in it. */
struct parts {
    struct bytes info; /* what is signed, with its header */
    struct bytes subject;
    struct bytes spki;
    struct bytes attributes;
    struct bytes signature;
    const EVP_MD *digest;
};

static bool request_split(struct bytes der, struct parts *ret_parts)
{
    static const uint8_t version_0[] = {0};
    struct parts p;
    struct der_reader all = der_read(der);
    struct der_reader request = der_read(der_next(&all, DER_SEQUENCE));
    p.info = der_next_whole(&request, DER_SEQUENCE);
    p.digest = plain_digest(der_next(&request, DER_SEQUENCE));
    p.signature = plain_bits(der_next(&request, DER_BIT_STRING));
    struct der_reader outer = der_read(p.info);
    struct der_reader info = der_read(der_next(&outer, DER_SEQUENCE));
    struct bytes version = der_next(&info, DER_INTEGER);
    p.subject = der_next_whole(&info, DER_SEQUENCE);
    p.spki = der_next_whole(&info, DER_SEQUENCE);
    p.attributes = der_next(&info, DER_CONTEXT_0);
    if (!der_ended(&all) || !der_ended(&request) || !der_ended(&info) || !p.digest ||
        p.signature.len == 0 || p.signature.len > PLAIN_MAX_SIGNATURE_BYTES ||
        !bytes_equal(version, bytes_of(version_0, sizeof(version_0))))
        return false;
    *ret_parts = p;
    return true;
}

static bool bytes_take(struct arena *arena, struct bytes from, struct bytes *ret_copy)
{
    void *copy = arena_copy(arena, from.data, from.len);
    if (!copy)
        return false;
    *ret_copy = bytes_of(copy, from.len);
    return true;
}

/* Text as names_parts takes it: printable, and in a string type that says how it is encoded. */
static bool text_take(struct arena *arena, struct bytes from, const char **ret_text)
{
    if (from.len == 0 || from.len > MAX_PART_BYTES || memchr(from.data, '\0', from.len))
        return false;
    const char *text = arena_copy(arena, from.data, from.len);
    if (!text || !text_is_printable_utf8(text))
        return false;
    *ret_text = text;
    return true;
}

static bool is_ascii(const char *s)
{
    while (*s && !(*s & 0x80))
        s++;
    return *s == '\0';
}

static bool part_take(struct arena *arena, struct der_reader *pair, struct csr *c)
{
    static const uint8_t attribute_type[] = {0x55, 0x04}; /* 2.5.4 */
    enum { COMMON_NAME = 3, SERIAL_NUMBER = 5 };
    const char *text = NULL;
    struct bytes type = der_next(pair, DER_OID);
    enum der_tag tag = der_peek(pair);
    struct bytes value = der_next(pair, tag);
    if (!der_ended(pair) || type.len != sizeof(attribute_type) + 1 || type.data[2] >= 0x80 ||
        memcmp(type.data, attribute_type, sizeof(attribute_type)) != 0 ||
        (tag != DER_UTF8_STRING && tag != DER_PRINTABLE_STRING) || !text_take(arena, value, &text))
        return false;
    if (tag == DER_PRINTABLE_STRING && !is_ascii(text))
        return false;
    if (type.data[2] == COMMON_NAME && !c->cn)
        c->cn = text;
    if (type.data[2] == SERIAL_NUMBER && !c->serial_number)
        c->serial_number = text;
    return true;
}

static bool subject_take(struct arena *arena, struct bytes subject, struct csr *c)
{
    struct der_reader outer = der_read(subject);
    struct der_reader name = der_read(der_next(&outer, DER_SEQUENCE));
    for (int i = 0; i < MAX_RDNS && der_peek(&name) != DER_NOTHING; i++) {
        struct der_reader rdn = der_read(der_next(&name, DER_SET));
        struct der_reader pair = der_read(der_next(&rdn, DER_SEQUENCE));
        if (!der_ended(&rdn) || !part_take(arena, &pair, c))
            return false;
    }
    return der_ended(&outer) && der_ended(&name) && bytes_take(arena, subject, &c->subject_der);
}

/* GeneralNames of plain strings, which encode to what they were decoded from. */
static bool san_take(struct arena *arena, struct bytes der, struct csr *c)
{
    struct der_reader outer = der_read(der);
    struct der_reader names = der_read(der_next(&outer, DER_SEQUENCE));
    if (c->san_der.len > 0 || names.rest.len == 0)
        return false;
    for (int i = 0; i < MAX_NAMES && der_peek(&names) != DER_NOTHING; i++) {
        enum der_tag tag = der_peek(&names);
        struct bytes value = der_next(&names, tag);
        bool plain = tag == DER_NAME_EMAIL || tag == DER_NAME_DNS || tag == DER_NAME_URI ||
                     tag == DER_NAME_IP;
        if (!plain || value.len == 0)
            return false;
        bool urn = tag == DER_NAME_URI && value.len >= 4 &&
                   strncasecmp((const char *)value.data, "urn:", 4) == 0;
        if (urn && !c->urn && !text_take(arena, value, &c->urn))
            return false;
    }
    return der_ended(&outer) && der_ended(&names) && bytes_take(arena, der, &c->san_der);
}

/* One of the extensions of RFC 5280 4.2.1; of them only the SAN matters. */
static bool extension_take(struct arena *arena, struct der_reader *e, struct csr *c)
{
    static const uint8_t extension_type[] = {0x55, 0x1d}; /* 2.5.29 */
    static const uint8_t yes[] = {0xff};
    enum { SUBJECT_ALT_NAME = 17 };
    struct bytes type = der_next(e, DER_OID);
    if (der_peek(e) == DER_BOOLEAN &&
        !bytes_equal(der_next(e, DER_BOOLEAN), bytes_of(yes, sizeof(yes))))
        return false;
    struct bytes value = der_next(e, DER_OCTET_STRING);
    if (!der_ended(e) || type.len != sizeof(extension_type) + 1 || type.data[2] >= 0x80 ||
        memcmp(type.data, extension_type, sizeof(extension_type)) != 0)
        return false;
    return type.data[2] != SUBJECT_ALT_NAME || san_take(arena, value, c);
}

static bool extensions_take(struct arena *arena, struct der_reader *values, struct csr *c)
{
    struct der_reader list = der_read(der_next(values, DER_SEQUENCE));
    for (int i = 0; i < MAX_EXTENSIONS && der_peek(&list) != DER_NOTHING; i++) {
        struct der_reader e = der_read(der_next(&list, DER_SEQUENCE));
        if (!extension_take(arena, &e, c))
            return false;
    }
    return der_ended(values) && der_ended(&list);
}

static bool challenge_take(struct arena *arena, struct der_reader *values, const char **ret_text)
{
    enum der_tag tag = der_peek(values);
    struct bytes value = der_next(values, tag);
    if (!der_ended(values) || value.len == 0 || value.len > MAX_CHALLENGE_BYTES ||
        (tag != DER_UTF8_STRING && tag != DER_PRINTABLE_STRING && tag != DER_IA5_STRING) ||
        memchr(value.data, '\0', value.len))
        return false;
    *ret_text = arena_copy(arena, value.data, value.len);
    return *ret_text != NULL;
}

/* What attributes a plain request has, each at most once. */
struct found {
    bool extensions;
    const char *password; /* challengePassword */
    const char *linking;  /* est-identity-linking, RFC 7894 section 3.3 */
};

static bool attribute_take(struct arena *arena, struct der_reader *attribute, struct csr *c,
                           struct found *f)
{
    static const uint8_t pkcs9[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09};
    static const uint8_t password[] = {7}, extensions[] = {14}, linking[] = {16, 2, 58};
    struct bytes type = der_next(attribute, DER_OID);
    struct der_reader values = der_read(der_next(attribute, DER_SET));
    if (!der_ended(attribute) || type.len <= sizeof(pkcs9) ||
        memcmp(type.data, pkcs9, sizeof(pkcs9)) != 0)
        return false;
    struct bytes last = bytes_of(type.data + sizeof(pkcs9), type.len - sizeof(pkcs9));
    if (bytes_equal(last, bytes_of(extensions, sizeof(extensions))) && !f->extensions) {
        f->extensions = true;
        return extensions_take(arena, &values, c);
    }
    if (bytes_equal(last, bytes_of(password, sizeof(password))) && !f->password)
        return challenge_take(arena, &values, &f->password);
    return bytes_equal(last, bytes_of(linking, sizeof(linking))) && !f->linking &&
           challenge_take(arena, &values, &f->linking);
}

static bool attributes_take(struct arena *arena, struct bytes attributes, struct csr *c)
{
    struct found f = {.extensions = false};
    struct der_reader list = der_read(attributes);
    for (int i = 0; i < MAX_ATTRIBUTES && der_peek(&list) != DER_NOTHING; i++) {
        struct der_reader attribute = der_read(der_next(&list, DER_SEQUENCE));
        if (!attribute_take(arena, &attribute, c, &f))
            return false;
    }
    if (!der_ended(&list) || (f.password && f.linking && strcmp(f.password, f.linking) != 0))
        return false;
    c->challenge = f.password ? f.password : f.linking;
    return true;
}

bool csr_decode_plain(struct arena *arena, struct bytes der, struct csr *ret_csr)
{
    struct csr c = {0};
    struct parts p;
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    if (der.len > CSR_MAX_BYTES || !request_split(der, &p) || !subject_take(arena, p.subject, &c) ||
        !attributes_take(arena, p.attributes, &c))
        return false;
    if (!plain_key(p.spki, &c.kind, &key) || !plain_verify(key, p.digest, p.signature, p.info) ||
        !bytes_take(arena, p.spki, &c.spki) || digest_sha256(c.spki, c.spki_sha256))
        return false;
    *ret_csr = c;
    return true;
}
