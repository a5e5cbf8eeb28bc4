#include <openssl/pkcs7.h>
#include <openssl/x509.h>

#include "pki/cert.h"

DEFINE_CLEANUP(PKCS7 *, PKCS7_free);

static enum err certs_add(PKCS7 *p7, const struct bytes *certs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        _cleanup_(cert_freep) X509 *x = NULL;
        enum err e = cert_decode(certs[i], &x);
        if (e)
            return e;
        if (!PKCS7_add_certificate(p7, x))
            return ERR_NO_MEMORY;
    }
    return ERR_OK;
}

/* OpenSSL writes the content type id-data by itself only where a content is made. */
enum err cms_certs_only(struct arena *arena, const struct bytes *certs, size_t count,
                        struct bytes *ret_der)
{
    _cleanup_(PKCS7_freep) PKCS7 *p7 = PKCS7_new();
    if (!p7 || !PKCS7_set_type(p7, NID_pkcs7_signed))
        return ERR_NO_MEMORY;
    p7->d.sign->contents->type = OBJ_nid2obj(NID_pkcs7_data);
    enum err e = certs_add(p7, certs, count);
    if (e)
        return e;
    unsigned char *der = NULL;
    int len = i2d_PKCS7(p7, &der);
    if (len < 0)
        return ERR_NO_MEMORY;
    void *copy = arena_copy(arena, der, (size_t)len);
    OPENSSL_free(der);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret_der = bytes_of(copy, (size_t)len);
    return ERR_OK;
}
