/* The body of an enrolment: unwrapped and decoded. */
#include "pki/csr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    struct bytes der;
    struct csr csr = {0};
    struct fault fault = {0};
    arena_init(&a, 4 << 20);
    if (csr_unwrap(&a, bytes_of(data, len), &der) == ERR_OK &&
        csr_decode(&a, der, &csr, &fault) == ERR_OK)
        csr_done(&csr);
    arena_done(&a);
    return 0;
}
