/* The body of an enrolment: unwrapped and decoded, the short way and the general way alike. */
#include <stdlib.h>
#include <string.h>

#include "pki/csr.h"
#include "pki/csr_fast.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same(const struct csr *a, const struct csr *b)
{
    return a->kind == b->kind && memcmp(a->spki_sha256, b->spki_sha256, SHA256_BYTES) == 0 &&
           bytes_equal(a->subject_der, b->subject_der) && bytes_equal(a->san_der, b->san_der) &&
           same_text(a->cn, b->cn) && same_text(a->serial_number, b->serial_number) &&
           same_text(a->challenge, b->challenge) && same_text(a->urn, b->urn);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    struct bytes der;
    struct csr either = {0}, general = {0};
    struct fault fault = {0}, other = {0};
    arena_init(&a, 4 << 20);
    if (csr_unwrap(&a, bytes_of(data, len), &der) == ERR_OK) {
        enum err e = csr_decode(&a, der, &either, &fault);
        enum err g = csr_decode_general(&a, der, &general, &other);
        if (e != g || fault.code != other.code || !same(&either, &general))
            abort();
        csr_done(&either);
        csr_done(&general);
    }
    arena_done(&a);
    return 0;
}
