/* The short way through plain requests for P-256 and P-384. In OpenSSL 3.0 decoding a
 * SubjectPublicKeyInfo takes longer than a signature, so the request is read here and the key is
 * made from its point and a template with the curve. Whatever is not of the usual shape is left
 * to the generic route. */
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "pki/csr.h"
#include "pki/der.h"
#include "pki/key.h"

enum {
    MAX_RDNS = 16,
    MAX_ATTRIBUTES = 8,
    MAX_EXTENSIONS = 16,
    MAX_NAMES = 32,
    MAX_PART_BYTES = 256,
    MAX_CHALLENGE_BYTES = 255, /* PKCS#9 ub-challenge-password */
    MAX_SIGNATURE_BYTES = 160,
    UNCOMPRESSED = 0x04
};

DEFINE_CLEANUP(EVP_PKEY_CTX *, EVP_PKEY_CTX_free);
DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free);

/* AlgorithmIdentifiers of the two kinds of keys, whole. */
static const uint8_t p256_algorithm[] = {0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                         0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
                                         0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
static const uint8_t p384_algorithm[] = {0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d,
                                         0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22};

static const struct curve {
    enum key_kind kind;
    const char *name;
    struct bytes algorithm;
    size_t point_bytes;
} curves[] = {
    {KEY_P256, "prime256v1", {p256_algorithm, sizeof(p256_algorithm)}, 65},
    {KEY_P384, "secp384r1", {p384_algorithm, sizeof(p384_algorithm)}, 97},
};

/* A key without a point for each curve, made once and never changed: making one takes as long as
 * a signature. */
static EVP_PKEY *templates[ARRAY_LEN(curves)];
static pthread_once_t templates_once = PTHREAD_ONCE_INIT;

static EVP_PKEY *template_make(const char *curve_name)
{
    EVP_PKEY *key = NULL;
    char name[16];
    snprintf(name, sizeof(name), "%s", curve_name);
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, name, 0),
                           OSSL_PARAM_construct_end()};
    _cleanup_(EVP_PKEY_CTX_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    if (!ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEY_PARAMETERS, params) != 1)
        return NULL;
    return key;
}

static void templates_make(void)
{
    for (size_t i = 0; i < ARRAY_LEN(curves); i++)
        templates[i] = template_make(curves[i].name);
}

/* Where the parts of a request stand in it. */
struct parts {
    struct bytes info; /* what is signed, with its header */
    struct bytes subject;
    struct bytes spki;
    struct bytes attributes;
    struct bytes signature;
    const EVP_MD *digest;
};

/* ecdsa-with-SHA256 to SHA512 (RFC 5758 3.2), which have no parameters. */
static const EVP_MD *digest_of(struct bytes algorithm)
{
    static const uint8_t ecdsa_with_sha2[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03};
    if (algorithm.len != sizeof(ecdsa_with_sha2) + 1 ||
        memcmp(algorithm.data, ecdsa_with_sha2, sizeof(ecdsa_with_sha2)) != 0)
        return NULL;
    switch (algorithm.data[sizeof(ecdsa_with_sha2)]) {
    case 2:
        return EVP_sha256();
    case 3:
        return EVP_sha384();
    case 4:
        return EVP_sha512();
    }
    return NULL;
}

/* A BIT STRING of whole bytes; len 0 when it is none. */
static struct bytes whole_bits(struct bytes bits)
{
    struct bytes none = {0};
    return bits.len > 1 && bits.data[0] == 0 ? bytes_of(bits.data + 1, bits.len - 1) : none;
}

static bool request_split(struct bytes der, struct parts *ret_parts)
{
    static const uint8_t version_0[] = {0};
    struct parts p;
    struct der_reader all = der_read(der);
    struct der_reader request = der_read(der_next(&all, DER_SEQUENCE));
    p.info = der_next_whole(&request, DER_SEQUENCE);
    p.digest = digest_of(der_next(&request, DER_SEQUENCE));
    p.signature = whole_bits(der_next(&request, DER_BIT_STRING));
    struct der_reader outer = der_read(p.info);
    struct der_reader info = der_read(der_next(&outer, DER_SEQUENCE));
    struct bytes version = der_next(&info, DER_INTEGER);
    p.subject = der_next_whole(&info, DER_SEQUENCE);
    p.spki = der_next_whole(&info, DER_SEQUENCE);
    p.attributes = der_next(&info, DER_CONTEXT_0);
    if (!der_ended(&all) || !der_ended(&request) || !der_ended(&info) || !p.digest ||
        p.signature.len == 0 || p.signature.len > MAX_SIGNATURE_BYTES ||
        !bytes_equal(version, bytes_of(version_0, sizeof(version_0))))
        return false;
    *ret_parts = p;
    return true;
}

/* The key in the one spelling that key_encode_canonical has. */
static bool key_make(struct bytes spki, enum key_kind *ret_kind, EVP_PKEY **ret_key)
{
    struct der_reader outer = der_read(spki);
    struct der_reader inner = der_read(der_next(&outer, DER_SEQUENCE));
    struct bytes algorithm = der_next_whole(&inner, DER_SEQUENCE);
    struct bytes point = whole_bits(der_next(&inner, DER_BIT_STRING));
    if (!der_ended(&outer) || !der_ended(&inner) || point.len == 0 || point.data[0] != UNCOMPRESSED)
        return false;
    size_t i = 0;
    while (i < ARRAY_LEN(curves) &&
           (!bytes_equal(algorithm, curves[i].algorithm) || point.len != curves[i].point_bytes))
        i++;
    if (i == ARRAY_LEN(curves) || pthread_once(&templates_once, templates_make) || !templates[i])
        return false;
    _cleanup_(key_freep) EVP_PKEY *key = EVP_PKEY_new();
    if (!key || EVP_PKEY_copy_parameters(key, templates[i]) != 1 ||
        EVP_PKEY_set1_encoded_public_key(key, point.data, point.len) != 1)
        return false;
    *ret_kind = curves[i].kind;
    *ret_key = TAKE_PTR(key);
    return true;
}

/* RFC 2986 section 3: the request is signed with the key it carries. */
static bool possession_proven(const struct parts *p, EVP_PKEY *key)
{
    _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    return ctx && EVP_DigestVerifyInit(ctx, NULL, p->digest, NULL, key) == 1 &&
           EVP_DigestVerify(ctx, p->signature.data, p->signature.len, p->info.data, p->info.len) ==
               1;
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
    if (!key_make(p.spki, &c.kind, &key) || !possession_proven(&p, key) ||
        !bytes_take(arena, p.spki, &c.spki) || digest_sha256(c.spki, c.spki_sha256))
        return false;
    *ret_csr = c;
    return true;
}
