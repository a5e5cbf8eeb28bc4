#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>

#include "pki/key.h"
#include "pki/scep_internal.h"

struct scep_ra {
    X509 *cert;
    struct signer *signer;
    struct arena arena;
    struct bytes der;
    struct bytes issuer;
    int64_t not_after_s;
};

enum { ARENA_BYTES = 64 * 1024 };

enum err scep_ra_new(X509 *cert, struct signer *signer, struct scep_ra **ret_ra)
{
    EVP_PKEY *key = signer->ops->key_get(signer);
    if (!(key_kind_of(key) & (KEY_RSA2048 | KEY_RSA3072 | KEY_RSA4096)) ||
        X509_check_private_key(cert, key) != 1)
        return ERR_INVALID;
    _cleanup_(scep_ra_freep) struct scep_ra *ra = calloc(1, sizeof(*ra));
    if (!ra)
        return ERR_NO_MEMORY;
    arena_init(&ra->arena, ARENA_BYTES);
    enum err e = cert_encode(&ra->arena, cert, &ra->der);
    if (!e)
        e = cert_issuer_der(ra->der, &ra->issuer);
    if (e)
        return e;
    X509_up_ref(cert);
    ra->cert = cert;
    ra->signer = signer;
    ra->not_after_s = cert_time_s(X509_get0_notAfter(cert));
    *ret_ra = TAKE_PTR(ra);
    return ERR_OK;
}

void scep_ra_free(struct scep_ra *ra)
{
    if (!ra)
        return;
    X509_free(ra->cert);
    signer_free(ra->signer);
    arena_done(&ra->arena);
    free(ra);
}

struct bytes scep_ra_certificate(const struct scep_ra *ra)
{
    return ra->der;
}

int64_t scep_ra_not_after_s(const struct scep_ra *ra)
{
    return ra->not_after_s;
}

struct bytes scep_ra_issuer(const struct scep_ra *ra)
{
    return ra->issuer;
}

X509 *scep_ra_x509(const struct scep_ra *ra)
{
    return ra->cert;
}

EVP_PKEY *scep_ra_key(const struct scep_ra *ra)
{
    return ra->signer->ops->key_get(ra->signer);
}
