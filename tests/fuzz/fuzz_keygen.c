/* A request for a key made by the server: decoded without proof of possession, and what it says of
 * the key's way. With a client certificate of no use nothing may be accepted for encryption. */
#include <assert.h>

#include "pki/keygen.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    struct csr csr = {0};
    struct keygen_wish wish = {0};
    struct fault fault = {0};
    arena_init(&a, 4 << 20);
    if (csr_decode_unproven(&a, bytes_of(data, len), &csr, &fault) == ERR_OK) {
        if (keygen_wish_take(&a, &csr, &wish, &fault) == ERR_OK) {
            enum err e = keygen_wish_check(&wish, bytes_of(NULL, 0), &fault);
            assert((e == ERR_OK) == !wish.encrypted);
        }
        csr_done(&csr);
    }
    arena_done(&a);
    return 0;
}
