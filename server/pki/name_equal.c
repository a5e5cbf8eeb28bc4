#include <openssl/x509.h>

#include "base/cleanup.h"
#include "pki/name.h"

DEFINE_CLEANUP(X509_NAME *, X509_NAME_free);

static X509_NAME *name_decode(struct bytes der)
{
    const unsigned char *p = der.data;
    return d2i_X509_NAME(NULL, &p, (long)der.len);
}

bool name_equal(struct bytes a, struct bytes b)
{
    _cleanup_(X509_NAME_freep) X509_NAME *left = name_decode(a);
    _cleanup_(X509_NAME_freep) X509_NAME *right = name_decode(b);
    return left && right && X509_NAME_cmp(left, right) == 0;
}
