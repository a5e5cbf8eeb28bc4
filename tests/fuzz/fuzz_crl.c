/* Other CAs' revocation lists: what is accepted is read again with as many entries, all with serial
 * numbers of up to 20 bytes. */
#include <stdlib.h>

#include "pki/cert.h"
#include "pki/crl_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { ARENA_BYTES = 64 << 20 };

static void must(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena arena;
    struct crl_info crl, again;
    const char *why = NULL;
    arena_init(&arena, ARENA_BYTES);
    if (crl_read(bytes_of(data, len), &arena, &crl, &why) == ERR_OK) {
        must(crl.next_update_s > crl.this_update_s);
        for (size_t i = 0; i < crl.count; i++)
            must(crl.rows[i].serial_number.len >= 1 &&
                 crl.rows[i].serial_number.len <= CERT_SERIAL_MAX_BYTES);
        must(crl_read(crl.der, &arena, &again, &why) == ERR_OK && again.count == crl.count &&
             bytes_equal(again.number, crl.number));
    } else {
        must(why != NULL);
    }
    arena_done(&arena);
    return 0;
}
