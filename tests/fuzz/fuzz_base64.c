/* A body in base64: what decodes must encode back to itself without white space. */
#include <stdlib.h>

#include "base/base64.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    struct bytes out, again;
    struct buf b;
    arena_init(&a, 4 << 20);
    buf_init(&b, 4 << 20);
    if (base64_decode(&a, bytes_of(data, len), &out) == ERR_OK) {
        base64_encode(&b, out);
        if (base64_decode(&a, buf_bytes(&b), &again) || !bytes_equal(out, again))
            abort();
    }
    buf_done(&b);
    arena_done(&a);
    return 0;
}
