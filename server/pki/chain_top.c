#include "pki/chain_top.h"

#include <openssl/x509v3.h>

#include "pki/cert.h"

/* A CA that may sign certificates, has the name and key that x asks for, and has signed it. */
static bool is_issuer(X509 *ca, X509 *x)
{
    return ca != x && X509_check_ca(ca) == 1 && X509_check_issued(ca, x) == X509_V_OK &&
           cert_signed_by(x, ca);
}

/* The index of the issuer of certs[at]; count: it was not sent, or signs itself. */
static size_t issuer_at(X509 *const *certs, size_t count, size_t at)
{
    size_t i = 1;
    while (i < count && !(i != at && is_issuer(certs[i], certs[at])))
        i++;
    return i;
}

enum err chain_top(const struct bytes *chain, size_t count, struct bytes *ret_ca)
{
    X509 *certs[CERT_MAX_CHAIN] = {0};
    size_t n = 0, top = 0;
    if (count > CERT_MAX_CHAIN)
        return ERR_NOT_FOUND;
    while (n < count && cert_decode(chain[n], &certs[n]) == ERR_OK)
        n++;
    /* as many steps as certificates: two that sign each other lead nowhere */
    for (size_t steps = 1, next = 0; steps < n; steps++) {
        next = issuer_at(certs, n, top);
        if (next == n)
            break;
        top = next;
    }
    for (size_t i = 0; i < n; i++)
        cert_free(certs[i]);
    if (top == 0)
        return ERR_NOT_FOUND;
    *ret_ca = chain[top];
    return ERR_OK;
}
