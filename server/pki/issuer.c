#include "pki/issuer.h"

#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "pki/build.h"
#include "pki/names.h"
#include "pki/tbs.h"

enum { MAX_EXTENSION_TEXT_BYTES = 8192, SLUG_BYTES = 16 };

struct issuer {
    int64_t id;
    char *name;
    char slug[2 * SLUG_BYTES + 1];
    X509 *cert;
    struct signer *signer;
    int64_t not_before_s;
    int64_t not_after_s;
    struct tbs_issuer tbs;
};

DEFINE_CLEANUP(X509_NAME *, X509_NAME_free);
DEFINE_CLEANUP(GENERAL_NAMES *, GENERAL_NAMES_free);
DEFINE_CLEANUP(GENERAL_NAME *, GENERAL_NAME_free);
DEFINE_CLEANUP(X509_PUBKEY *, X509_PUBKEY_free);

static enum err slug_make(struct issuer *i)
{
    uint8_t digest[SHA256_BYTES];
    enum err e = cert_key_fingerprint(i->cert, digest);
    for (size_t n = 0; n < SLUG_BYTES && !e; n++)
        snprintf(i->slug + 2 * n, 3, "%02x", digest[n]);
    return e;
}

/* The signer stays the caller's until everything else is right. */
enum err issuer_new(int64_t id, const char *name, struct bytes cert_der, struct signer *signer,
                    struct issuer **ret_issuer)
{
    _cleanup_(issuer_freep) struct issuer *i = calloc(1, sizeof(*i));
    if (!i)
        return ERR_NO_MEMORY;
    i->id = id;
    i->name = strdup(name);
    enum err e = i->name ? cert_decode(cert_der, &i->cert) : ERR_NO_MEMORY;
    if (e)
        return e;
    if (X509_check_ca(i->cert) != 1 ||
        X509_check_private_key(i->cert, signer->ops->key_get(signer)) != 1)
        return ERR_INVALID;
    e = slug_make(i);
    if (e)
        return e;
    i->not_before_s = cert_time_s(X509_get0_notBefore(i->cert));
    i->not_after_s = cert_time_s(X509_get0_notAfter(i->cert));
    e = tbs_issuer_init(&i->tbs, i->cert, signer->ops->key_get(signer));
    if (e && e != ERR_NOT_FOUND)
        return e;
    i->signer = signer;
    *ret_issuer = TAKE_PTR(i);
    return ERR_OK;
}

void issuer_free(struct issuer *i)
{
    if (!i)
        return;
    signer_free(i->signer);
    tbs_issuer_done(&i->tbs);
    cert_free(i->cert);
    free(i->name);
    free(i);
}

int64_t issuer_id(const struct issuer *i)
{
    return i->id;
}

const char *issuer_name(const struct issuer *i)
{
    return i->name;
}

int64_t issuer_not_after_s(const struct issuer *i)
{
    return i->not_after_s;
}

const char *issuer_slug(const struct issuer *i)
{
    return i->slug;
}

X509 *issuer_certificate(const struct issuer *i)
{
    return i->cert;
}

EVP_PKEY *issuer_key(const struct issuer *i)
{
    return i->signer->ops->key_get(i->signer);
}

void issuer_failed(const struct issuer *i)
{
    if (i->signer->ops->failed)
        i->signer->ops->failed(i->signer);
}

/* The given Name, or the profile's. */
static enum err subject_make(const struct cert_profile *p, struct bytes given, X509_NAME **ret_name)
{
    const unsigned char *at = given.data;
    _cleanup_(X509_NAME_freep) X509_NAME *name =
        given.len > 0 ? d2i_X509_NAME(NULL, &at, (long)given.len) : X509_NAME_new();
    if (!name)
        return given.len > 0 ? ERR_INVALID : ERR_NO_MEMORY;
    for (size_t i = 0; i < p->subject_count && given.len == 0; i++) {
        const struct rdn *r = &p->subject[i];
        if (!X509_NAME_add_entry_by_txt(name, r->type, MBSTRING_UTF8,
                                        (const unsigned char *)r->value, -1, -1, 0))
            return ERR_INVALID;
    }
    *ret_name = TAKE_PTR(name);
    return ERR_OK;
}

static enum err subject_set(X509 *x, const struct cert_profile *p, struct bytes given)
{
    _cleanup_(X509_NAME_freep) X509_NAME *name = NULL;
    enum err e = subject_make(p, given, &name);
    if (e)
        return e;
    return X509_set_subject_name(x, name) ? ERR_OK : ERR_NO_MEMORY;
}

static enum err san_add(GENERAL_NAMES *names, const struct san *s)
{
    static const int types[] = {
        [SAN_DNS] = GEN_DNS, [SAN_URI] = GEN_URI, [SAN_EMAIL] = GEN_EMAIL, [SAN_IP] = GEN_IPADD};
    _cleanup_(GENERAL_NAME_freep) GENERAL_NAME *n =
        a2i_GENERAL_NAME(NULL, NULL, NULL, types[s->kind], s->value, 0);
    if (!n)
        return ERR_INVALID;
    if (sk_GENERAL_NAME_push(names, n) <= 0)
        return ERR_NO_MEMORY;
    (void)TAKE_PTR(n);
    return ERR_OK;
}

static enum err san_make(const struct cert_profile *p, GENERAL_NAMES **ret_names)
{
    _cleanup_(GENERAL_NAMES_freep) GENERAL_NAMES *names = GENERAL_NAMES_new();
    enum err e = names ? ERR_OK : ERR_NO_MEMORY;
    for (size_t i = 0; i < p->san_count && !e; i++)
        e = san_add(names, &p->san[i]);
    if (!e)
        *ret_names = TAKE_PTR(names);
    return e;
}

/* RFC 5280 4.2.1.6: critical when the subject is empty. A renewal's SAN is copied. */
static enum err san_set(X509 *x, const struct cert_profile *p, bool copied, struct bytes given)
{
    bool critical = X509_NAME_entry_count(X509_get_subject_name(x)) == 0;
    _cleanup_(GENERAL_NAMES_freep) GENERAL_NAMES *names = NULL;
    if (copied)
        return given.len > 0 ? build_extension_der(x, NID_subject_alt_name, critical, given)
                             : ERR_OK;
    if (p->san_count == 0)
        return ERR_OK;
    enum err e = san_make(p, &names);
    if (!e && !X509_add1_ext_i2d(x, NID_subject_alt_name, names, critical, X509V3_ADD_DEFAULT))
        e = ERR_NO_MEMORY;
    return e;
}

/* The SubjectPublicKeyInfo as the request has it: X509_set_pubkey would encode and decode it
 * again, which costs more than the signature. */
static enum err key_copy(X509 *x, X509_PUBKEY *from)
{
    X509_PUBKEY *to = X509_get_X509_PUBKEY(x);
    X509_ALGOR *theirs = NULL, *ours = NULL;
    ASN1_OBJECT *object = NULL;
    const unsigned char *bits = NULL;
    int len = 0;
    if (!X509_PUBKEY_get0_param(&object, &bits, &len, &theirs, from))
        return ERR_INVALID;
    unsigned char *copy = OPENSSL_memdup(bits, (size_t)len);
    if (!copy || !X509_PUBKEY_set0_param(to, OBJ_dup(object), V_ASN1_UNDEF, NULL, copy, len)) {
        OPENSSL_free(copy);
        return ERR_NO_MEMORY;
    }
    X509_PUBKEY_get0_param(NULL, NULL, NULL, &ours, to);
    return X509_ALGOR_copy(ours, theirs) ? ERR_OK : ERR_NO_MEMORY;
}

static enum err key_set(X509 *x, const struct csr *csr)
{
    const unsigned char *at = csr->spki.data;
    if (csr->request)
        return key_copy(x, X509_REQ_get_X509_PUBKEY(csr->request));
    _cleanup_(X509_PUBKEY_freep) X509_PUBKEY *key = d2i_X509_PUBKEY(NULL, &at, (long)csr->spki.len);
    return key ? key_copy(x, key) : ERR_INVALID;
}

static enum err eku_set(X509 *x, X509 *issuer, unsigned eku)
{
    static const struct {
        enum eku bit;
        const char *name;
    } names[] = {{EKU_CLIENT_AUTH, "clientAuth"},
                 {EKU_SERVER_AUTH, "serverAuth"},
                 {EKU_CMC_RA, "1.3.6.1.5.5.7.3.28"}};
    char text[64] = "";
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!(eku & names[i].bit))
            continue;
        if (text[0] != '\0')
            strcat(text, ",");
        strcat(text, names[i].name);
    }
    return text[0] != '\0' ? build_extension(x, issuer, NID_ext_key_usage, text) : ERR_OK;
}

/* OpenSSL's configuration text splits at commas; templates refuse such URLs. */
static void url_add(struct buf *b, const char *kind, const char *url)
{
    if (!url)
        return;
    buf_printf(b, "%s%sURI:%s", b->len > 0 ? "," : "", kind, url);
}

static enum err addresses_set(X509 *x, X509 *issuer, const struct cert_profile *p)
{
    _cleanup_(buf_donep) struct buf crl = {0};
    _cleanup_(buf_donep) struct buf aia = {0};
    buf_init(&crl, MAX_EXTENSION_TEXT_BYTES);
    buf_init(&aia, MAX_EXTENSION_TEXT_BYTES);
    for (size_t i = 0; i < p->crl_url_count; i++)
        url_add(&crl, "", p->crl_urls[i]);
    url_add(&aia, "OCSP;", p->ocsp_url);
    url_add(&aia, "caIssuers;", p->ca_issuers_url);
    if (crl.overflow || aia.overflow)
        return ERR_INVALID;
    enum err e = crl.len > 0
                     ? build_extension(x, issuer, NID_crl_distribution_points, buf_text(&crl))
                     : ERR_OK;
    if (!e && aia.len > 0)
        e = build_extension(x, issuer, NID_info_access, buf_text(&aia));
    return e;
}

static enum err extensions_set(X509 *x, X509 *issuer, const struct csr *csr,
                               const struct cert_profile *p)
{
    bool rsa = csr->kind & (KEY_RSA2048 | KEY_RSA3072 | KEY_RSA4096);
    enum err e = build_extension(x, issuer, NID_basic_constraints, "critical,CA:FALSE");
    if (!e)
        e = build_extension(x, issuer, NID_key_usage,
                            rsa ? "critical,digitalSignature,keyEncipherment"
                                : "critical,digitalSignature");
    if (!e)
        e = build_extension(x, issuer, NID_subject_key_identifier, "hash");
    if (!e)
        e = build_extension(x, issuer, NID_authority_key_identifier, "keyid:always");
    if (!e)
        e = eku_set(x, issuer, p->eku);
    return e ? e : addresses_set(x, issuer, p);
}

/* Spreads the ends of a fleet enrolled in one day. */
static int64_t jitter_pick(int64_t jitter_s)
{
    uint64_t r = 0;
    if (jitter_s <= 0 || secret_random(&r, sizeof(r)))
        return 0;
    return (int64_t)(r % (uint64_t)(jitter_s + 1));
}

static enum err times_pick(const struct issuer *i, const struct cert_profile *p, int64_t now_s,
                           struct issuer_order *out)
{
    out->not_before_s = now_s - p->backdate_s;
    if (out->not_before_s < i->not_before_s)
        out->not_before_s = i->not_before_s;
    out->not_after_s = now_s + p->validity_s - jitter_pick(p->jitter_s);
    if (out->not_after_s > i->not_after_s)
        out->not_after_s = i->not_after_s;
    return out->not_after_s > now_s ? ERR_OK : ERR_UNAVAILABLE;
}

static enum err generic_sign(const struct issuer *i, const struct issuer_order *o,
                             struct arena *arena, struct bytes *ret_der)
{
    _cleanup_(cert_freep) X509 *x = X509_new();
    enum err e =
        x ? build_begin_as(x, o->not_before_s, o->not_after_s, o->serial_number) : ERR_NO_MEMORY;
    if (!e)
        e = subject_set(x, o->profile, o->subject_der);
    if (!e && !X509_set_issuer_name(x, X509_get_subject_name(i->cert)))
        e = ERR_NO_MEMORY;
    if (!e)
        e = key_set(x, o->csr);
    if (!e)
        e = extensions_set(x, i->cert, o->csr, o->profile);
    if (!e)
        e = san_set(x, o->profile, o->subject_der.len > 0, o->san_der);
    return e ? e : build_sign(x, issuer_key(i), arena, ret_der);
}

/* Subject and SAN as OpenSSL encodes them: which string types and lengths an attribute may have
 * is its knowledge. */
static enum err names_encode(const struct issuer_order *o, struct arena *arena, struct tbs *t)
{
    _cleanup_(X509_NAME_freep) X509_NAME *name = NULL;
    _cleanup_(GENERAL_NAMES_freep) GENERAL_NAMES *names = NULL;
    enum err e = subject_make(o->profile, o->subject_der, &name);
    if (!e)
        e = names_der(arena, name, &t->subject_der);
    if (e || o->subject_der.len > 0 || o->profile->san_count == 0)
        return e;
    e = san_make(o->profile, &names);
    return e ? e : names_san_der(arena, names, &t->san_der);
}

static enum err short_sign(const struct issuer *i, const struct issuer_order *o,
                           struct arena *arena, struct bytes *ret_der)
{
    struct tbs t = {.serial_number = o->serial_number,
                    .not_before_s = o->not_before_s,
                    .not_after_s = o->not_after_s,
                    .spki = o->csr->spki,
                    .san_der = o->san_der,
                    .profile = o->profile};
    if (o->csr->spki.len == 0 || !(o->csr->kind & (KEY_P256 | KEY_P384)))
        return ERR_NOT_FOUND;
    if (o->subject_der.len == 0)
        t.san_der = bytes_of(NULL, 0);
    enum err e = names_encode(o, arena, &t);
    return e ? e : tbs_sign(&i->tbs, &t, issuer_key(i), arena, ret_der);
}

enum err issuer_sign_by(const struct issuer *i, enum issuer_route route,
                        const struct issuer_order *order, struct arena *arena,
                        struct bytes *ret_der)
{
    return route == ISSUER_ROUTE_SHORT ? short_sign(i, order, arena, ret_der)
                                       : generic_sign(i, order, arena, ret_der);
}

enum err issuer_sign(const struct issuer *i, const struct csr *csr,
                     const struct cert_profile *profile, struct bytes subject_der,
                     struct bytes san_der, int64_t now_s, struct arena *arena,
                     struct issued *ret_issued)
{
    struct issued out = {0};
    struct issuer_order o = {
        .csr = csr, .profile = profile, .subject_der = subject_der, .san_der = san_der};
    enum err e = times_pick(i, profile, now_s, &o);
    if (!e)
        e = build_serial_number(o.serial_number);
    if (!e)
        e = issuer_sign_by(i, ISSUER_ROUTE_SHORT, &o, arena, &out.der);
    if (e == ERR_NOT_FOUND)
        e = issuer_sign_by(i, ISSUER_ROUTE_GENERIC, &o, arena, &out.der);
    if (!e)
        e = digest_sha256(out.der, out.fingerprint);
    if (e)
        return e;
    memcpy(out.serial_number, o.serial_number, sizeof(out.serial_number));
    out.not_before_s = o.not_before_s;
    out.not_after_s = o.not_after_s;
    *ret_issued = out;
    return ERR_OK;
}
