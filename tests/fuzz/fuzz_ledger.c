/* A line of a ledger: whatever it is, what is read stands in it; a seal is nobody's by chance. */
#include <openssl/evp.h>
#include <stdlib.h>

#include "pki/key.h"
#include "pki/ledger.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { ARENA_BYTES = 1 << 20 };

static EVP_PKEY *key;

static void must(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct ledger_line line;
    struct ledger l;
    struct arena arena;
    arena_init(&arena, ARENA_BYTES);
    ledger_start(&l);
    must(key || key_generate(KEY_P256, &key) == ERR_OK);
    if (!ledger_read(bytes_of(data, len), &arena, &line)) {
        must(line.n > 0 && line.sealed.len < len && !ledger_seal_verify(&line, key));
        must(!ledger_follows(&l, &line) || line.n == 1);
        ledger_step(&l, &line);
        must(l.n == line.n);
    }
    arena_done(&arena);
    return 0;
}
