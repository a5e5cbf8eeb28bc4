/*
 * OCSP requests: what is accepted has one to eight CertIDs that decode again, serial numbers of up
 * to 20 bytes and a nonce of up to 32.
 */
#include <openssl/ocsp.h>
#include <stdlib.h>

#include "pki/cert.h"
#include "pki/ocsp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { ARENA_BYTES = 1 << 20 };

static void asked_check(const struct ocsp_asked *a)
{
    const unsigned char *at = a->id.data;
    OCSP_CERTID *id = d2i_OCSP_CERTID(NULL, &at, (long)a->id.len);
    if (!id || at != a->id.data + a->id.len || a->serial_number.len < 1 ||
        a->serial_number.len > CERT_SERIAL_MAX_BYTES)
        abort();
    OCSP_CERTID_free(id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    struct ocsp_request request;
    arena_init(&a, ARENA_BYTES);
    if (ocsp_request_parse(bytes_of(data, len), &a, &request) == ERR_OK) {
        if (request.count < 1 || request.count > OCSP_MAX_ASKED ||
            request.nonce.len > OCSP_MAX_NONCE_BYTES)
            abort();
        for (size_t i = 0; i < request.count; i++)
            asked_check(&request.asked[i]);
    }
    arena_done(&a);
    return 0;
}
