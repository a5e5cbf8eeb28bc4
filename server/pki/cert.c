#include "pki/cert.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "base/base64.h"
#include "pki/der.h"
#include "pki/key.h"
#include "pki/names.h"

enum { PEM_LINE_CHARS = 64, PEM_OVERHEAD = 128, MIN_SIGNATURE_BITS = 112 };

DEFINE_CLEANUP(BIO *, BIO_free_all);
DEFINE_CLEANUP(GENERAL_NAMES *, GENERAL_NAMES_free);
DEFINE_CLEANUP(BIGNUM *, BN_free);

void cert_free(X509 *x)
{
    X509_free(x);
}

enum err cert_decode(struct bytes der, X509 **ret_cert)
{
    if (der.len == 0 || der.len > CERT_MAX_BYTES)
        return ERR_INVALID;
    const unsigned char *p = der.data;
    X509 *x = d2i_X509(NULL, &p, (long)der.len);
    if (!x || p != der.data + der.len) {
        X509_free(x);
        return ERR_INVALID;
    }
    *ret_cert = x;
    return ERR_OK;
}

enum err cert_parse_pem(struct bytes pem, X509 **ret_certs, size_t max, size_t *ret_count)
{
    _cleanup_(BIO_free_allp) BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    size_t n = 0;
    X509 *x = NULL;
    while (bio && n < max && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
        ret_certs[n++] = x;
    if (n == 0)
        return bio ? ERR_INVALID : ERR_NO_MEMORY;
    *ret_count = n;
    return ERR_OK;
}

enum err cert_parse_first_pem(struct bytes pem, X509 **ret_cert)
{
    size_t count = 0;
    return cert_parse_pem(pem, ret_cert, 1, &count);
}

static enum err octets_take(struct arena *arena, const ASN1_OCTET_STRING *s, struct bytes *ret)
{
    if (!s)
        return ERR_OK;
    size_t len = (size_t)ASN1_STRING_length(s);
    void *copy = arena_copy(arena, ASN1_STRING_get0_data(s), len);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret = bytes_of(copy, len);
    return ERR_OK;
}

/* The magnitude; zero and negative numbers, and longer ones than RFC 5280 4.1.2.2 allows, are
 * refused. */
static enum err serial_number_take(struct arena *arena, X509 *x, struct bytes *ret)
{
    _cleanup_(BN_freep) BIGNUM *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(x), NULL);
    if (!n || BN_is_negative(n) || BN_num_bytes(n) > CERT_SERIAL_MAX_BYTES || BN_is_zero(n))
        return ERR_INVALID;
    uint8_t *out = arena_alloc(arena, CERT_SERIAL_MAX_BYTES);
    if (!out)
        return ERR_NO_MEMORY;
    *ret = bytes_of(out, (size_t)BN_bn2bin(n, out));
    return ERR_OK;
}

int64_t cert_time_s(const ASN1_TIME *t)
{
    struct tm tm = {0};
    return ASN1_TIME_to_tm(t, &tm) ? timegm(&tm) : 0;
}

static enum err time_take(const ASN1_TIME *t, int64_t *ret_s)
{
    struct tm tm = {0};
    if (!ASN1_TIME_to_tm(t, &tm))
        return ERR_INVALID;
    *ret_s = timegm(&tm);
    return ERR_OK;
}

static enum err names_take(struct arena *arena, X509 *x, struct cert_info *i)
{
    struct name_parts parts;
    enum err e = names_parts(arena, X509_get_subject_name(x), &parts);
    if (!e)
        e = names_der(arena, X509_get_subject_name(x), &i->subject_der);
    if (!e)
        e = names_der(arena, X509_get_issuer_name(x), &i->issuer_der);
    if (e)
        return e;
    i->subject_text = names_text(arena, X509_get_subject_name(x));
    i->issuer_text = names_text(arena, X509_get_issuer_name(x));
    i->cn = parts.cn;
    i->subject_serial_number = parts.serial_number;
    i->country = parts.country;
    i->organization = parts.organization;
    i->organizational_unit = parts.organizational_unit;
    i->state_name = parts.state_name;
    i->dn_qualifier = parts.dn_qualifier;
    return i->subject_text && i->issuer_text ? ERR_OK : ERR_NO_MEMORY;
}

static enum err san_take(struct arena *arena, X509 *x, struct cert_info *i)
{
    int critical = -1;
    _cleanup_(GENERAL_NAMES_freep) GENERAL_NAMES *names =
        X509_get_ext_d2i(x, NID_subject_alt_name, &critical, NULL);
    if (!names)
        return critical == -1 ? ERR_OK : ERR_INVALID;
    enum err e = names_urn(arena, names, &i->urn);
    return e ? e : names_san_der(arena, names, &i->san_der);
}

enum err cert_version(struct bytes der, int *ret_version)
{
    struct der_reader all = der_read(der);
    struct der_reader cert = der_read(der_next(&all, DER_SEQUENCE));
    struct der_reader tbs = der_read(der_next(&cert, DER_SEQUENCE));
    *ret_version = 1; /* the DEFAULT (RFC 5280 4.1.2.1) */
    if (der_peek(&tbs) != DER_CONTEXT_0)
        return der_peek(&tbs) == DER_INTEGER ? ERR_OK : ERR_INVALID;
    struct der_reader outer = der_read(der_next(&tbs, DER_CONTEXT_0));
    struct bytes version = der_next(&outer, DER_INTEGER);
    if (!der_ended(&outer) || version.len != 1 || version.data[0] > 2)
        return ERR_INVALID;
    *ret_version = version.data[0] + 1;
    return ERR_OK;
}

enum err cert_sha1(struct bytes der, uint8_t ret_digest[SHA1_BYTES])
{
    return EVP_Digest(der.data, der.len, ret_digest, NULL, EVP_sha1(), NULL) ? ERR_OK
                                                                             : ERR_NO_MEMORY;
}

/* A key that stands in its one spelling needs no exporting, which is most of the work. */
enum err cert_key_fingerprint(X509 *x, uint8_t ret_digest[SHA256_BYTES])
{
    EVP_PKEY *key = X509_get0_pubkey(x);
    unsigned char *der = NULL;
    if (!key)
        return ERR_INVALID;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);
    if (len < 0)
        return ERR_NO_MEMORY;
    struct bytes spki = bytes_of(der, (size_t)len);
    enum err e = key_spki_is_canonical(spki) ? digest_sha256(spki, ret_digest)
                                             : key_fingerprint(key, ret_digest);
    OPENSSL_free(der);
    return e;
}

static enum err digests_take(X509 *x, struct cert_info *i)
{
    unsigned len = 0;
    if (!X509_digest(x, EVP_sha256(), i->fingerprint, &len))
        return ERR_SYSTEM;
    return cert_key_fingerprint(x, i->spki_sha256);
}

static bool has_cmc_ra(X509 *x)
{
    EXTENDED_KEY_USAGE *usage = X509_get_ext_d2i(x, NID_ext_key_usage, NULL, NULL);
    bool found = false;
    for (int i = 0; i < sk_ASN1_OBJECT_num(usage); i++)
        found = found || OBJ_obj2nid(sk_ASN1_OBJECT_value(usage, i)) == NID_cmcRA;
    EXTENDED_KEY_USAGE_free(usage);
    return found;
}

enum err cert_describe(struct arena *arena, X509 *x, struct cert_info *ret_info)
{
    struct cert_info i = {0};
    enum err e = digests_take(x, &i);
    if (!e)
        e = serial_number_take(arena, x, &i.serial_number);
    if (!e)
        e = names_take(arena, x, &i);
    if (!e)
        e = san_take(arena, x, &i);
    if (!e)
        e = octets_take(arena, X509_get0_authority_key_id(x), &i.aki);
    if (!e)
        e = octets_take(arena, X509_get0_subject_key_id(x), &i.ski);
    if (!e)
        e = time_take(X509_get0_notBefore(x), &i.not_before_s);
    if (!e)
        e = time_take(X509_get0_notAfter(x), &i.not_after_s);
    if (e)
        return e;
    i.is_ca = X509_check_ca(x) > 0;
    i.is_registration_authority = has_cmc_ra(x);
    i.self_issued = X509_NAME_cmp(X509_get_subject_name(x), X509_get_issuer_name(x)) == 0;
    *ret_info = i;
    return ERR_OK;
}

enum err cert_issuer_der(struct bytes der, struct bytes *ret_name)
{
    struct der_reader all = der_read(der);
    struct der_reader cert = der_read(der_next(&all, DER_SEQUENCE));
    struct der_reader tbs = der_read(der_next(&cert, DER_SEQUENCE));
    if (der_peek(&tbs) == DER_CONTEXT_0)
        (void)der_next(&tbs, DER_CONTEXT_0); /* version */
    (void)der_next(&tbs, DER_INTEGER);
    (void)der_next(&tbs, DER_SEQUENCE); /* signature algorithm */
    struct bytes name = der_next_whole(&tbs, DER_SEQUENCE);
    if (name.len == 0)
        return ERR_INVALID;
    *ret_name = name;
    return ERR_OK;
}

enum err cert_encode(struct arena *arena, X509 *x, struct bytes *ret_der)
{
    unsigned char *der = NULL;
    int len = i2d_X509(x, &der);
    if (len < 0)
        return ERR_NO_MEMORY;
    void *copy = arena_copy(arena, der, (size_t)len);
    OPENSSL_free(der);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret_der = bytes_of(copy, (size_t)len);
    return ERR_OK;
}

char *pem_text(struct arena *arena, const char *label, struct bytes der)
{
    _cleanup_(buf_donep) struct buf text = {0};
    _cleanup_(buf_donep) struct buf pem = {0};
    buf_init(&text, 2 * CERT_MAX_BYTES);
    buf_init(&pem, 3 * CERT_MAX_BYTES + PEM_OVERHEAD);
    base64_encode(&text, der);
    buf_printf(&pem, "-----BEGIN %s-----\n", label);
    for (size_t at = 0; at < text.len; at += PEM_LINE_CHARS) {
        size_t rest = text.len - at;
        buf_add(&pem, text.data + at, rest < PEM_LINE_CHARS ? rest : PEM_LINE_CHARS);
        buf_add_char(&pem, '\n');
    }
    buf_printf(&pem, "-----END %s-----\n", label);
    if (text.overflow || pem.overflow)
        return NULL;
    return arena_strdup(arena, buf_text(&pem));
}

char *cert_pem(struct arena *arena, struct bytes der)
{
    return pem_text(arena, "CERTIFICATE", der);
}

bool cert_signed_by(X509 *cert, X509 *ca)
{
    int bits = 0;
    EVP_PKEY *key = X509_get0_pubkey(ca);
    bool good = key && X509_get_signature_info(cert, NULL, NULL, &bits, NULL) &&
                bits >= MIN_SIGNATURE_BITS && X509_verify(cert, key) == 1;
    ERR_clear_error();
    return good;
}
