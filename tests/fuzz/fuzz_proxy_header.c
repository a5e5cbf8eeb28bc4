/* The headers of a proxy that ended TLS: one line each, Client-Cert, -Chain, X-Forwarded-For. */
#include <stdlib.h>
#include <string.h>

#include "http/address.h"
#include "proto/client_cert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void chain_check(struct arena *a, const char *cert, const char *chain)
{
    struct bytes got[CLIENT_CERT_MAX];
    struct fault fault = {0};
    size_t count = 0;
    enum err e = client_cert_parse(a, cert, chain, got, CLIENT_CERT_MAX, &count, &fault);
    if (e == ERR_OK && (count < 1 || count > CLIENT_CERT_MAX))
        abort();
    if (e == ERR_DENIED && fault.code == FAULT_NONE)
        abort();
    for (size_t i = 0; e == ERR_OK && i < count; i++) {
        if (got[i].len == 0 || got[i].len > CLIENT_CERT_MAX_BYTES)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    arena_init(&a, 1 << 20);
    char *cert = len < 262144 ? arena_copy(&a, data, len) : NULL;
    char *chain = cert ? strchr(cert, '\n') : NULL;
    if (chain)
        *chain++ = '\0';
    char *forwarded = chain ? strchr(chain, '\n') : NULL;
    if (forwarded)
        *forwarded++ = '\0';
    if (cert)
        chain_check(&a, cert, chain);
    struct sockaddr_storage address;
    const char *last = forwarded ? client_cert_address(&a, forwarded) : NULL;
    if (last && address_parse(last, &address) == ERR_OK && address.ss_family != AF_INET &&
        address.ss_family != AF_INET6)
        abort();
    arena_done(&a);
    return 0;
}
