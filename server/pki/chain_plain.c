/* The short way through plain client certificates: a leaf of the usual shape, signed by an anchor
 * without an intermediate. Building and checking a chain in OpenSSL 3.0 costs several times the
 * signature that it checks. Whatever is not as expected is left to the generic way, which also
 * finds the words for a refusal. */
#include <openssl/asn1.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "pki/der.h"
#include "pki/names.h"
#include "pki/plain.h"
#include "pki/trust.h"

enum {
    MAX_EXTENSIONS = 16,
    MAX_PURPOSES = 16,
    UTC_TIME_CHARS = 13,         /* YYMMDDHHMMSSZ, RFC 5280 4.1.2.5.1 */
    GENERALIZED_TIME_CHARS = 15, /* YYYYMMDDHHMMSSZ, 4.1.2.5.2 */
    NAME_KEY_ID = 0x80           /* AuthorityKeyIdentifier, [0] */
};

DEFINE_CLEANUP(X509_NAME *, X509_NAME_free);
DEFINE_CLEANUP(ASN1_TIME *, ASN1_TIME_free);
DEFINE_CLEANUP(GENERAL_NAMES *, GENERAL_NAMES_free);

/* Where the parts of a certificate stand in it. */
struct parts {
    struct bytes tbs; /* what is signed, with its header */
    struct bytes serial_number;
    struct bytes issuer;
    struct bytes not_before;
    struct bytes not_after;
    struct bytes subject;
    struct bytes spki;
    struct bytes extensions;
    struct bytes signature;
    const EVP_MD *digest;
};

/* RFC 5280 4.1.2.5 in its strict form, from an element with its header. */
static bool time_take(struct bytes der, int64_t *ret_s)
{
    const unsigned char *p = der.data;
    _cleanup_(ASN1_TIME_freep) ASN1_TIME *t = d2i_ASN1_TIME(NULL, &p, (long)der.len);
    if (!t || p != der.data + der.len)
        return false;
    bool utc = ASN1_STRING_type(t) == V_ASN1_UTCTIME;
    *ret_s = cert_time_s(t);
    return ASN1_STRING_length(t) == (utc ? UTC_TIME_CHARS : GENERALIZED_TIME_CHARS) && *ret_s != 0;
}

static bool validity_split(struct der_reader validity, struct parts *p)
{
    p->not_before = der_next_whole(&validity, der_peek(&validity));
    p->not_after = der_next_whole(&validity, der_peek(&validity));
    return der_ended(&validity);
}

static bool tbs_split(struct bytes algorithm, struct parts *p)
{
    static const uint8_t version_3[] = {0x02, 0x01, 0x02};
    struct der_reader outer = der_read(p->tbs);
    struct der_reader tbs = der_read(der_next(&outer, DER_SEQUENCE));
    struct bytes version = der_next(&tbs, DER_CONTEXT_0);
    p->serial_number = der_next(&tbs, DER_INTEGER);
    struct bytes inner_algorithm = der_next(&tbs, DER_SEQUENCE);
    p->issuer = der_next_whole(&tbs, DER_SEQUENCE);
    struct der_reader validity = der_read(der_next(&tbs, DER_SEQUENCE));
    p->subject = der_next_whole(&tbs, DER_SEQUENCE);
    p->spki = der_next_whole(&tbs, DER_SEQUENCE);
    struct der_reader wrap = der_read(der_next(&tbs, DER_CONTEXT_3));
    p->extensions = der_next(&wrap, DER_SEQUENCE);
    return der_ended(&tbs) && der_ended(&wrap) && validity_split(validity, p) &&
           bytes_equal(version, bytes_of(version_3, sizeof(version_3))) &&
           bytes_equal(algorithm, inner_algorithm);
}

static bool certificate_split(struct bytes der, struct parts *ret_parts)
{
    struct parts p;
    struct der_reader all = der_read(der);
    struct der_reader certificate = der_read(der_next(&all, DER_SEQUENCE));
    p.tbs = der_next_whole(&certificate, DER_SEQUENCE);
    struct bytes algorithm = der_next(&certificate, DER_SEQUENCE);
    p.digest = plain_digest(algorithm);
    p.signature = plain_bits(der_next(&certificate, DER_BIT_STRING));
    if (!der_ended(&all) || !der_ended(&certificate) || !p.digest || p.signature.len == 0 ||
        p.signature.len > PLAIN_MAX_SIGNATURE_BYTES || !tbs_split(algorithm, &p))
        return false;
    *ret_parts = p;
    return true;
}

static const struct known_ca *anchor_find(const struct trust *t, struct bytes issuer)
{
    for (const struct known_ca *ca = t->cas; ca < t->cas + t->count; ca++) {
        if (ca->plain && bytes_equal(ca->info.subject_der, issuer))
            return ca;
    }
    return NULL;
}

static bool copy_take(struct arena *arena, struct bytes from, struct bytes *ret_copy)
{
    void *copy = arena_copy(arena, from.data, from.len);
    if (!copy)
        return false;
    *ret_copy = bytes_of(copy, from.len);
    return true;
}

/* The magnitude of a positive number in its shortest form (RFC 5280 4.1.2.2). */
static bool serial_number_take(struct arena *arena, struct bytes n, struct bytes *ret_magnitude)
{
    if (n.len == 0 || n.data[0] & 0x80)
        return false;
    bool padded = n.data[0] == 0;
    if (padded && (n.len == 1 || !(n.data[1] & 0x80)))
        return false;
    struct bytes magnitude = bytes_of(n.data + padded, n.len - padded);
    return magnitude.len <= CERT_SERIAL_MAX_BYTES && copy_take(arena, magnitude, ret_magnitude);
}

static bool subject_take(struct arena *arena, struct bytes der, const struct known_ca *ca,
                         struct cert_info *i)
{
    struct name_parts parts;
    const unsigned char *p = der.data;
    _cleanup_(X509_NAME_freep) X509_NAME *name = d2i_X509_NAME(NULL, &p, (long)der.len);
    if (!name || p != der.data + der.len ||
        X509_NAME_cmp(name, X509_get_subject_name(ca->cert)) == 0 ||
        names_parts(arena, name, &parts) || names_der(arena, name, &i->subject_der))
        return false;
    i->subject_text = names_text(arena, name);
    i->cn = parts.cn;
    i->subject_serial_number = parts.serial_number;
    i->country = parts.country;
    i->organization = parts.organization;
    i->organizational_unit = parts.organizational_unit;
    i->state_name = parts.state_name;
    i->dn_qualifier = parts.dn_qualifier;
    return i->subject_text != NULL && bytes_equal(i->subject_der, der);
}

/* KeyUsage without keyCertSign: named bits in the shortest form, at least one of them set. */
static bool key_usage_is_plain(struct bytes value)
{
    enum { KEY_CERT_SIGN = 0x04, MAX_BYTES = 3 };
    struct der_reader outer = der_read(value);
    struct bytes bits = der_next(&outer, DER_BIT_STRING);
    if (!der_ended(&outer) || bits.len < 2 || bits.len > MAX_BYTES || bits.data[0] > 7)
        return false;
    uint8_t last = bits.data[bits.len - 1];
    unsigned unused = bits.data[0];
    return !(bits.data[1] & KEY_CERT_SIGN) && last >> unused & 1 && !(last & ((1U << unused) - 1));
}

/* Purposes of RFC 5280 4.2.1.12 with clientAuth or any, without that of a registration
 * authority (RFC 6402 2.10). */
static bool purposes_are_plain(struct bytes value)
{
    static const uint8_t purpose[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03};
    static const uint8_t any[] = {0x55, 0x1d, 0x25, 0x00};
    enum { CLIENT_AUTH = 2, CMC_RA = 28 };
    bool client = false;
    struct der_reader outer = der_read(value);
    struct der_reader list = der_read(der_next(&outer, DER_SEQUENCE));
    for (int i = 0; i < MAX_PURPOSES && der_peek(&list) != DER_NOTHING; i++) {
        struct bytes oid = der_next(&list, DER_OID);
        bool anything = bytes_equal(oid, bytes_of(any, sizeof(any)));
        bool known = oid.len == sizeof(purpose) + 1 &&
                     memcmp(oid.data, purpose, sizeof(purpose)) == 0 &&
                     oid.data[sizeof(purpose)] < 0x80 && oid.data[sizeof(purpose)] != CMC_RA;
        if (!anything && !known)
            return false;
        client = client || anything || oid.data[sizeof(purpose)] == CLIENT_AUTH;
    }
    return der_ended(&outer) && der_ended(&list) && client;
}

static bool constraints_are_plain(struct bytes value)
{
    struct der_reader outer = der_read(value);
    struct bytes constraints = der_next(&outer, DER_SEQUENCE);
    return der_ended(&outer) && constraints.len == 0;
}

static bool san_take(struct arena *arena, struct bytes value, struct cert_info *i)
{
    const unsigned char *p = value.data;
    _cleanup_(GENERAL_NAMES_freep) GENERAL_NAMES *names =
        d2i_GENERAL_NAMES(NULL, &p, (long)value.len);
    return names && p == value.data + value.len && !names_urn(arena, names, &i->urn) &&
           !names_san_der(arena, names, &i->san_der) && bytes_equal(i->san_der, value);
}

static bool ski_take(struct arena *arena, struct bytes value, struct cert_info *i)
{
    struct der_reader outer = der_read(value);
    struct bytes id = der_next(&outer, DER_OCTET_STRING);
    return der_ended(&outer) && id.len > 0 && copy_take(arena, id, &i->ski);
}

/* Only the key's identifier, and that of the CA where it has one. */
static bool aki_take(struct arena *arena, struct bytes value, struct bytes ca_ski,
                     struct cert_info *i)
{
    struct der_reader outer = der_read(value);
    struct der_reader aki = der_read(der_next(&outer, DER_SEQUENCE));
    struct bytes id = der_next(&aki, (enum der_tag)NAME_KEY_ID);
    return der_ended(&outer) && der_ended(&aki) && id.len > 0 &&
           (ca_ski.len == 0 || bytes_equal(ca_ski, id)) && copy_take(arena, id, &i->aki);
}

/* What one extension of 2.5.29 says; false for those that are not plain. */
static bool value_take(struct arena *arena, unsigned type, struct bytes value, bool critical,
                       const struct known_ca *ca, struct cert_info *i)
{
    enum { SKI = 14, KEY_USAGE = 15, SAN = 17, CONSTRAINTS = 19, AKI = 35, PURPOSES = 37 };
    switch (type) {
    case SKI:
        return !critical && ski_take(arena, value, i);
    case KEY_USAGE:
        return key_usage_is_plain(value);
    case SAN:
        return san_take(arena, value, i);
    case CONSTRAINTS:
        return constraints_are_plain(value);
    case AKI:
        return !critical && aki_take(arena, value, ca->info.ski, i);
    case PURPOSES:
        return purposes_are_plain(value);
    }
    return false;
}

/* seen: a bit for each type there was, as RFC 5280 4.2 allows each only once. */
static bool extension_take(struct arena *arena, struct der_reader *e, const struct known_ca *ca,
                           uint64_t *seen, struct cert_info *i)
{
    static const uint8_t extension_type[] = {0x55, 0x1d}; /* 2.5.29 */
    static const uint8_t yes[] = {0xff};
    struct bytes type = der_next(e, DER_OID);
    bool critical = der_peek(e) == DER_BOOLEAN;
    if (critical && !bytes_equal(der_next(e, DER_BOOLEAN), bytes_of(yes, sizeof(yes))))
        return false;
    struct bytes value = der_next(e, DER_OCTET_STRING);
    if (!der_ended(e) || type.len != sizeof(extension_type) + 1 || type.data[2] >= 64 ||
        memcmp(type.data, extension_type, sizeof(extension_type)) != 0)
        return false;
    uint64_t bit = UINT64_C(1) << type.data[2];
    if (*seen & bit)
        return false;
    *seen |= bit;
    return value_take(arena, type.data[2], value, critical, ca, i);
}

static bool extensions_take(struct arena *arena, struct bytes extensions, const struct known_ca *ca,
                            struct cert_info *i)
{
    uint64_t seen = 0;
    struct der_reader list = der_read(extensions);
    for (int n = 0; n < MAX_EXTENSIONS && der_peek(&list) != DER_NOTHING; n++) {
        struct der_reader e = der_read(der_next(&list, DER_SEQUENCE));
        if (!extension_take(arena, &e, ca, &seen, i))
            return false;
    }
    return der_ended(&list) && extensions.len > 0;
}

static bool digests_take(struct bytes der, struct bytes spki, struct cert_info *i)
{
    return !digest_sha256(der, i->fingerprint) && !digest_sha256(spki, i->spki_sha256);
}

static bool is_now(int64_t now_s, int64_t from_s, int64_t until_s)
{
    return from_s < now_s && now_s < until_s;
}

/* What the client sent above its leaf is nothing but the anchor. */
static bool sent_only(const struct known_ca *ca, const struct bytes *chain, size_t count)
{
    for (size_t n = 1; n < count; n++) {
        if (!bytes_equal(chain[n], ca->der))
            return false;
    }
    return true;
}

static bool signed_by(const struct known_ca *ca, const struct parts *p)
{
    enum key_kind kind;
    _cleanup_(key_freep) EVP_PKEY *leaf_key = NULL;
    return plain_key(p->spki, &kind, &leaf_key) &&
           plain_verify(X509_get0_pubkey(ca->cert), p->digest, p->signature, p->tbs);
}

bool chain_verify_plain(const struct trust *t, struct arena *arena, const struct bytes *chain,
                        size_t count, int64_t now_s, struct chain_verdict *ret_verdict)
{
    struct cert_info i = {0};
    struct parts p;
    if (count < 1 || count > CERT_MAX_CHAIN || chain[0].len > CERT_MAX_BYTES ||
        !certificate_split(chain[0], &p))
        return false;
    const struct known_ca *ca = anchor_find(t, p.issuer);
    if (!ca || !sent_only(ca, chain, count) || !time_take(p.not_before, &i.not_before_s) ||
        !time_take(p.not_after, &i.not_after_s) || !is_now(now_s, i.not_before_s, i.not_after_s) ||
        !is_now(now_s, ca->info.not_before_s, ca->info.not_after_s))
        return false;
    if (!serial_number_take(arena, p.serial_number, &i.serial_number) ||
        !subject_take(arena, p.subject, ca, &i) || !extensions_take(arena, p.extensions, ca, &i) ||
        !digests_take(chain[0], p.spki, &i) || !signed_by(ca, &p))
        return false;
    i.issuer_text = arena_strdup(arena, ca->info.subject_text);
    if (!i.issuer_text || !copy_take(arena, ca->info.subject_der, &i.issuer_der))
        return false;
    *ret_verdict = (struct chain_verdict){.anchor_id = ca->id, .leaf = i};
    return true;
}
