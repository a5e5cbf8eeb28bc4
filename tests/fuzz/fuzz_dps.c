/* What DPS parses, by the first byte: an Authorization header, a body, the id of an operation. */
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"
#include "pki/csr.h"
#include "proto/dps/internal.h"
#include "proto/dps/sas.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { ARENA_BYTES = 4 << 20 };

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void header_try(struct arena *arena, const char *text)
{
    struct fault fault = {0};
    struct sas sas;
    if (sas_parse(arena, text, &sas, &fault)) {
        must(fault.code == FAULT_SAS_MALFORMED);
        return;
    }
    must(sas.signature.len == SHA256_BYTES && sas.ends_s >= 0 && sas.signed_text.len > 0);
    (void)!sas_check(&sas, "0ne00000001", "sn-1", 1795453470, &fault);
}

static void body_try(struct arena *arena, struct bytes body)
{
    struct exchange x = {.arena = arena};
    struct dps_request rq;
    if (dps_request_read(&x, "sn-1", body, &rq)) {
        must(x.fault.code == FAULT_REQUEST_MALFORMED);
        return;
    }
    must(!rq.csr || strlen(rq.csr) <= 2 * CSR_MAX_BYTES);
    must(rq.endorsement_chain_count <= ENROLLMENT_MAX_CHAIN);
    must(rq.endorsement_chain_count == 0 || rq.endorsement_key.len > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena arena;
    enum dps_kept kept = DPS_KEPT;
    if (len == 0 || len > DPS_MAX_BODY_BYTES)
        return 0;
    arena_init(&arena, ARENA_BYTES);
    const char *text = arena_copy(&arena, data + 1, len - 1);
    if (text && data[0] % 3 == 0)
        header_try(&arena, text);
    else if (text && data[0] % 3 == 1)
        body_try(&arena, bytes_of(text, len - 1));
    else if (text && dps_operation_is(text, "SN-1", &kept))
        must(kept == DPS_KEPT || kept == DPS_GUESSABLE || kept == DPS_LOST);
    arena_done(&arena);
    return 0;
}
