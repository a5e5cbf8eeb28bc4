#include "pki/trust.h"

#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "pki/key.h"

DEFINE_CLEANUP(X509_CRL *, X509_CRL_free);

enum { MAX_TRUST = 4096, MAX_CA_ARENA_BYTES = 8 * CERT_MAX_BYTES };

/* A CRL that does not parse is one that somebody has put into the registry past us. */
static enum err crl_take(struct trust *t, struct bytes der)
{
    const unsigned char *at = der.data;
    _cleanup_(X509_CRL_freep) X509_CRL *crl = d2i_X509_CRL(NULL, &at, (long)der.len);
    if (!crl)
        return ERR_INVALID;
    return X509_STORE_add_crl(t->store, crl) ? ERR_OK : ERR_NO_MEMORY;
}

static enum err ca_take(struct trust *t, const struct trust_ca *ca)
{
    struct known_ca *k = &t->cas[t->count];
    enum err e = cert_decode(ca->der, &k->cert);
    if (e)
        return e;
    t->count++;
    k->role = ca->role;
    k->id = ca->id;
    k->crl_required = ca->crl_required;
    k->has_crl = ca->crl.len > 0;
    t->judges_crls |= k->crl_required || k->has_crl;
    (void)X509_check_ca(k->cert); /* fills OpenSSL's cache of extensions before threads share it */
    e = cert_key_fingerprint(k->cert, k->spki_sha256);
    if (!e && k->role == TRUST_ANCHOR && !X509_STORE_add_cert(t->store, k->cert))
        return ERR_NO_MEMORY;
    return e || !k->has_crl ? e : crl_take(t, ca->crl);
}

/* RFC 5280 4.2.1.3, 4.2.1.9 and 4.2.1.10; the key is P-256 or P-384 in its one spelling. */
static bool signs_plainly(X509 *ca)
{
    uint32_t flags = X509_get_extension_flags(ca);
    unsigned char *der = NULL;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(ca), &der);
    bool plain_key = len > 0 && key_spki_is_canonical(bytes_of(der, (size_t)len));
    OPENSSL_free(der);
    return plain_key && X509_check_ca(ca) == 1 && !(flags & (EXFLAG_INVALID | EXFLAG_CRITICAL)) &&
           X509_get_key_usage(ca) & KU_KEY_CERT_SIGN &&
           X509_get_ext_by_NID(ca, NID_name_constraints, -1) < 0;
}

static bool stands_alone(const struct trust *t, const struct known_ca *k)
{
    const X509_NAME *subject = X509_get_subject_name(k->cert);
    const X509_NAME *issuer = X509_get_issuer_name(k->cert);
    for (const struct known_ca *other = t->cas; other < t->cas + t->count; other++) {
        const X509_NAME *name = X509_get_subject_name(other->cert);
        if (other != k && (X509_NAME_cmp(name, subject) == 0 || X509_NAME_cmp(name, issuer) == 0 ||
                           memcmp(other->spki_sha256, k->spki_sha256, sizeof(k->spki_sha256)) == 0))
            return false;
    }
    return true;
}

static enum err plain_judge(struct trust *t, struct known_ca *k)
{
    if (k->has_crl || k->crl_required || !signs_plainly(k->cert) || !stands_alone(t, k))
        return ERR_OK;
    enum err e = cert_encode(&t->arena, k->cert, &k->der);
    if (!e)
        e = cert_describe(&t->arena, k->cert, &k->info);
    k->plain = !e;
    return e == ERR_NO_MEMORY ? e : ERR_OK; /* one that is too odd to describe is not plain */
}

enum err trust_new(const struct trust_ca *cas, size_t count, struct trust **ret_trust)
{
    _cleanup_(trust_freep) struct trust *t = calloc(1, sizeof(*t));
    if (!t || count > MAX_TRUST)
        return t ? ERR_INVALID : ERR_NO_MEMORY;
    arena_init(&t->arena, (count + 1) * MAX_CA_ARENA_BYTES);
    t->store = X509_STORE_new();
    t->cas = calloc(count + 1, sizeof(*t->cas));
    if (!t->store || !t->cas)
        return ERR_NO_MEMORY;
    X509_STORE_set_flags(t->store, X509_V_FLAG_PARTIAL_CHAIN);
    for (size_t i = 0; i < count; i++) {
        enum err e = ca_take(t, &cas[i]);
        if (e)
            return e;
    }
    for (size_t i = 0; i < count; i++) {
        enum err e = t->cas[i].role == TRUST_ANCHOR ? plain_judge(t, &t->cas[i]) : ERR_OK;
        if (e)
            return e;
    }
    *ret_trust = TAKE_PTR(t);
    return ERR_OK;
}

void trust_free(struct trust *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->count; i++)
        X509_free(t->cas[i].cert);
    X509_STORE_free(t->store);
    arena_done(&t->arena);
    free(t->cas);
    free(t);
}
