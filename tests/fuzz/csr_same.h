/* What the two routes of csr_decode owe one another: what the short one accepts the generic one
 * accepts, with the same values. Threads: any. */
#pragma once

#include <stdlib.h>

#include "pki/csr.h"

static inline void csr_must(bool holds)
{
    if (!holds)
        abort();
}

static inline void csr_same_text(const char *a, const char *b)
{
    csr_must((a && b && strcmp(a, b) == 0) || (!a && !b));
}

/* Decodes by both routes and aborts when they differ. */
static inline void csr_same(struct arena *arena, struct bytes der)
{
    struct csr plain = {0}, generic = {0};
    struct fault fault = {0};
    bool taken = csr_decode_plain(arena, der, &plain);
    enum err e = csr_decode_generic(arena, der, &generic, &fault);
    if (taken) {
        csr_must(e == ERR_OK && plain.kind == generic.kind);
        csr_must(memcmp(plain.spki_sha256, generic.spki_sha256, SHA256_BYTES) == 0);
        csr_must(bytes_equal(plain.spki, generic.spki));
        csr_must(bytes_equal(plain.subject_der, generic.subject_der));
        csr_must(bytes_equal(plain.san_der, generic.san_der));
        csr_same_text(plain.cn, generic.cn);
        csr_same_text(plain.serial_number, generic.serial_number);
        csr_same_text(plain.challenge, generic.challenge);
        csr_same_text(plain.urn, generic.urn);
    }
    csr_done(&plain);
    csr_done(&generic);
}
