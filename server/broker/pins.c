#include "broker/pins.h"

#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "base/cleanup.h"

DEFINE_CLEANUP(BIO *, BIO_free_all);
DEFINE_CLEANUP(X509 *, X509_free);

/* The next certificate's digest; ERR_NOT_FOUND at the end of the file. */
static enum err pin_read(BIO *in, uint8_t ret_cert[SHA256_BYTES])
{
    _cleanup_(X509_freep) X509 *x = PEM_read_bio_X509(in, NULL, NULL, NULL);
    unsigned len = 0;
    if (!x) {
        bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
        ERR_clear_error();
        return end ? ERR_NOT_FOUND : ERR_INVALID;
    }
    return X509_digest(x, EVP_sha256(), ret_cert, &len) == 1 ? ERR_OK : ERR_INVALID;
}

enum err pins_load(const char *path, struct pins *ret_pins)
{
    _cleanup_(BIO_free_allp) BIO *in = BIO_new_file(path, "r");
    struct pins found = {0};
    uint8_t cert[SHA256_BYTES];
    enum err e;
    if (!in) {
        ERR_clear_error();
        return ERR_SYSTEM;
    }
    while ((e = pin_read(in, cert)) == ERR_OK) {
        if (found.count == PINS_MAX)
            return ERR_INVALID;
        memcpy(found.certs[found.count++], cert, SHA256_BYTES);
    }
    if (e != ERR_NOT_FOUND || found.count == 0)
        return ERR_INVALID;
    *ret_pins = found;
    return ERR_OK;
}

bool pins_have(const struct pins *p, const uint8_t cert[SHA256_BYTES])
{
    for (size_t i = 0; i < p->count; i++) {
        if (memcmp(p->certs[i], cert, SHA256_BYTES) == 0)
            return true;
    }
    return false;
}
