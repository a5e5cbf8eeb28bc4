/* The body of an enrolment: unwrapped and decoded by both routes. */
#include "csr_same.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    struct bytes der;
    arena_init(&a, 4 << 20);
    if (csr_unwrap(&a, bytes_of(data, len), &der) == ERR_OK)
        csr_same(&a, der);
    arena_done(&a);
    return 0;
}
