#include "pki/tbs.h"

#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "base/cleanup.h"
#include "pki/build.h"
#include "pki/cert.h"
#include "pki/der.h"
#include "pki/extension.h"
#include "pki/key.h"

enum { SERIAL_BYTES = 20, MAX_URL_BYTES = 1024, KEY_ID_BYTES = 20, OID_PREFIX_BYTES = 10 };

/* The extension as OpenSSL makes it from the issuer's certificate. */
static enum err authority_key_id_take(X509 *cert, struct buf *ret)
{
    unsigned char *der = NULL;
    _cleanup_(cert_freep) X509 *x = X509_new();
    enum err e =
        x ? build_extension(x, cert, NID_authority_key_identifier, "keyid:always") : ERR_NO_MEMORY;
    int len = e ? -1 : i2d_X509_EXTENSION(X509_get_ext(x, 0), &der);
    if (len > 0)
        buf_add(ret, der, (size_t)len);
    OPENSSL_free(der);
    return len > 0 ? ERR_OK : ERR_NOT_FOUND;
}

enum err tbs_issuer_init(struct tbs_issuer *t, X509 *cert, EVP_PKEY *key)
{
    unsigned char *der = NULL;
    buf_init(&t->name, CERT_MAX_BYTES);
    buf_init(&t->authority_key_id, CERT_MAX_BYTES);
    int len = i2d_X509_NAME(X509_get_subject_name(cert), &der);
    if (len > 0)
        buf_add(&t->name, der, (size_t)len);
    OPENSSL_free(der);
    enum err e = authority_key_id_take(cert, &t->authority_key_id);
    if (e || len <= 0 || t->name.overflow || t->authority_key_id.overflow)
        return ERR_NOT_FOUND;
    t->algorithm = signed_algorithm_of(key);
    return t->algorithm.der.len > 0 ? ERR_OK : ERR_NOT_FOUND;
}

void tbs_issuer_done(struct tbs_issuer *t)
{
    buf_done(&t->name);
    buf_done(&t->authority_key_id);
    *t = (struct tbs_issuer){0};
}

/* What OpenSSL's configuration text takes as it stands. */
static bool url_is_plain(const char *url)
{
    size_t len = url ? strlen(url) : 1;
    for (const char *c = url; c && *c; c++) {
        if (*c <= 0x20 || *c >= 0x7f || *c == ',')
            return false;
    }
    return len > 0 && len <= MAX_URL_BYTES;
}

static bool urls_are_plain(const struct cert_profile *p)
{
    bool plain = url_is_plain(p->ocsp_url) && url_is_plain(p->ca_issuers_url);
    for (size_t i = 0; i < p->crl_url_count; i++)
        plain = plain && p->crl_urls[i] && url_is_plain(p->crl_urls[i]);
    return plain;
}

/* basicConstraints CA:FALSE and keyUsage digitalSignature. */
static void constants_add(struct buf *b)
{
    static const uint8_t no_ca[] = {DER_SEQUENCE, 0};
    static const uint8_t signature[] = {DER_BIT_STRING, 2, 7, 0x80};
    extension_add(b, 19, true, bytes_of(no_ca, sizeof(no_ca)));
    extension_add(b, 15, true, bytes_of(signature, sizeof(signature)));
}

/* RFC 5280 4.2.1.2, method 1: the digest of the point. */
static enum err subject_key_id_add(struct buf *b, struct bytes spki)
{
    uint8_t value[2 + KEY_ID_BYTES] = {DER_OCTET_STRING, KEY_ID_BYTES};
    struct der_reader outer = der_read(spki);
    struct der_reader inner = der_read(der_next(&outer, DER_SEQUENCE));
    (void)der_next(&inner, DER_SEQUENCE);
    struct bytes bits = der_next(&inner, DER_BIT_STRING);
    if (!der_ended(&outer) || !der_ended(&inner) || bits.len < 2)
        return ERR_NOT_FOUND;
    if (!EVP_Digest(bits.data + 1, bits.len - 1, value + 2, NULL, EVP_sha1(), NULL))
        return ERR_SYSTEM;
    extension_add(b, 14, false, bytes_of(value, sizeof(value)));
    return ERR_OK;
}

static void eku_add(struct buf *b, unsigned eku)
{
    static const struct {
        enum eku bit;
        uint8_t last; /* of id-kp, 1.3.6.1.5.5.7.3 */
    } usages[] = {{EKU_CLIENT_AUTH, 2}, {EKU_SERVER_AUTH, 1}, {EKU_CMC_RA, 28}};
    uint8_t value[2 + ARRAY_LEN(usages) * OID_PREFIX_BYTES] = {DER_SEQUENCE};
    size_t len = 2;
    for (size_t i = 0; i < ARRAY_LEN(usages); i++) {
        const uint8_t oid[OID_PREFIX_BYTES] = {DER_OID, 8, 0x2b, 6, 1, 5, 5, 7, 3, usages[i].last};
        if (!(eku & usages[i].bit))
            continue;
        memcpy(value + len, oid, sizeof(oid));
        len += sizeof(oid);
    }
    value[1] = (uint8_t)(len - 2);
    if (len > 2)
        extension_add(b, 37, false, bytes_of(value, len));
}

static void crls_add(struct buf *b, const struct cert_profile *p)
{
    _cleanup_(buf_donep) struct buf value = {0};
    buf_init(&value, CERT_MAX_BYTES);
    extension_points(&value, p->crl_urls, p->crl_url_count);
    if (p->crl_url_count > 0)
        extension_add(b, 31, false, buf_bytes(&value));
}

static void access_add(struct buf *b, uint8_t last, const char *url)
{
    /* id-ad, 1.3.6.1.5.5.7.48 */
    const uint8_t oid[OID_PREFIX_BYTES] = {DER_OID, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, last};
    if (!url)
        return;
    der_header(b, DER_SEQUENCE, sizeof(oid) + der_size(strlen(url)));
    buf_add(b, oid, sizeof(oid));
    der_add(b, DER_NAME_URI, bytes_text(url));
}

/* AuthorityInfoAccess, id-pe 1: not one of extension_add's. */
static void information_access_add(struct buf *b, const struct cert_profile *p)
{
    static const uint8_t oid[] = {DER_OID, 8, 0x2b, 6, 1, 5, 5, 7, 1, 1};
    _cleanup_(buf_donep) struct buf accesses = {0};
    buf_init(&accesses, CERT_MAX_BYTES);
    access_add(&accesses, 1, p->ocsp_url);
    access_add(&accesses, 2, p->ca_issuers_url);
    if (accesses.len == 0)
        return;
    size_t value = der_size(accesses.len);
    der_header(b, DER_SEQUENCE, sizeof(oid) + der_size(value));
    buf_add(b, oid, sizeof(oid));
    der_header(b, DER_OCTET_STRING, value);
    der_wrap(b, DER_SEQUENCE, &accesses);
}

static enum err extensions_add(struct buf *b, const struct tbs_issuer *issuer, const struct tbs *t)
{
    enum { EMPTY_NAME_BYTES = 2 };
    _cleanup_(buf_donep) struct buf list = {0};
    buf_init(&list, CERT_MAX_BYTES);
    constants_add(&list);
    enum err e = subject_key_id_add(&list, t->spki);
    if (e)
        return e;
    buf_add(&list, issuer->authority_key_id.data, issuer->authority_key_id.len);
    eku_add(&list, t->profile->eku);
    crls_add(&list, t->profile);
    information_access_add(&list, t->profile);
    if (t->san_der.len > 0)
        extension_add(&list, 17, t->subject_der.len == EMPTY_NAME_BYTES, t->san_der);
    der_header(b, DER_CONTEXT_3, der_size(list.len));
    der_wrap(b, DER_SEQUENCE, &list);
    return list.overflow ? ERR_NOT_FOUND : ERR_OK;
}

static enum err validity_add(struct buf *b, const struct tbs *t)
{
    _cleanup_(buf_donep) struct buf times = {0};
    buf_init(&times, CERT_MAX_BYTES);
    enum err e = der_time(&times, t->not_before_s);
    if (!e)
        e = der_time(&times, t->not_after_s);
    der_wrap(b, DER_SEQUENCE, &times);
    return e ? ERR_NOT_FOUND : ERR_OK;
}

static enum err content_add(struct buf *b, const struct tbs_issuer *issuer, const struct tbs *t)
{
    static const uint8_t version_3[] = {DER_CONTEXT_0, 3, DER_INTEGER, 1, 2};
    buf_add(b, version_3, sizeof(version_3));
    der_add(b, DER_INTEGER, bytes_of(t->serial_number, SERIAL_BYTES));
    buf_add(b, issuer->algorithm.der.data, issuer->algorithm.der.len);
    buf_add(b, issuer->name.data, issuer->name.len);
    enum err e = validity_add(b, t);
    buf_add(b, t->subject_der.data, t->subject_der.len);
    buf_add(b, t->spki.data, t->spki.len);
    return e ? e : extensions_add(b, issuer, t);
}

enum err tbs_sign(const struct tbs_issuer *issuer, const struct tbs *t, EVP_PKEY *key,
                  struct arena *arena, struct bytes *ret_der)
{
    _cleanup_(buf_donep) struct buf content = {0};
    _cleanup_(buf_donep) struct buf tbs = {0};
    buf_init(&content, CERT_MAX_BYTES);
    buf_init(&tbs, CERT_MAX_BYTES);
    if (issuer->algorithm.der.len == 0 || !urls_are_plain(t->profile))
        return ERR_NOT_FOUND;
    enum err e = content_add(&content, issuer, t);
    if (e)
        return e;
    der_wrap(&tbs, DER_SEQUENCE, &content);
    if (content.overflow || tbs.overflow)
        return ERR_NOT_FOUND;
    return signed_make(&issuer->algorithm, key, buf_bytes(&tbs), arena, ret_der);
}
