/* The identity of a PSK, which a stranger sends before anything of him is known: what is taken must
 * spell itself again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/psk_identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct psk_identity id;
    char again[PSK_IDENTITY_MAX_CHARS * 2];
    if (psk_identity_parse(bytes_of(data, len), &id))
        return 0;
    int n =
        snprintf(again, sizeof(again), "%s/%s%s", id.product, id.serial, id.secondary ? "#2" : "");
    if (n < 0 || (size_t)n != len || memcmp(again, data, len) != 0)
        abort();
    return 0;
}
