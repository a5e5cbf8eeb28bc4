/* The Authorization header of a device. */
#include <stdlib.h>
#include <string.h>

#include "proto/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    struct fault fault = {0};
    struct device_auth auth = {0};
    arena_init(&a, 1 << 20);
    const char *header = len < 65536 ? arena_copy(&a, data, len) : NULL;
    if (header && auth_parse(&a, header, &auth, &fault) == ERR_OK &&
        (!auth.token || strlen(auth.token) > AUTH_MAX_TOKEN_BYTES))
        abort();
    arena_done(&a);
    return 0;
}
