/* Ids of operations: "4.1f0a….018f…": whether the request is kept, whose it is, and which. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/secret.h"
#include "base/text.h"
#include "proto/dps/internal.h"

enum { OWNER_BYTES = 8, OWNER_CHARS = 2 * OWNER_BYTES, HEAD_CHARS = OWNER_CHARS + 3, MAX_ID = 128 };

/* "1f0a…": who polls another's operation is told that there is none, whoever he is. */
static enum err owner_write(const char *registration_id, struct buf *b)
{
    char lower[MAX_ID + 1];
    uint8_t digest[SHA256_BYTES];
    size_t len = strlen(registration_id);
    if (len > MAX_ID)
        return ERR_INVALID;
    for (size_t i = 0; i <= len; i++)
        lower[i] = (char)tolower((unsigned char)registration_id[i]);
    enum err e = digest_sha256(bytes_text(lower), digest);
    if (!e)
        text_add_hex(b, bytes_of(digest, OWNER_BYTES));
    return e;
}

enum err dps_operation_make(const char *registration_id, enum dps_kept kept, const char *request_id,
                            char ret_id[DPS_OPERATION_BYTES])
{
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, DPS_OPERATION_BYTES - 1);
    buf_printf(&b, "%c.", kept);
    enum err e = owner_write(registration_id, &b);
    buf_printf(&b, ".%s", request_id);
    if (!e && b.overflow)
        e = ERR_INVALID;
    if (!e)
        memcpy(ret_id, b.data, b.len + 1);
    return e;
}

bool dps_operation_is(const char *id, const char *registration_id, enum dps_kept *ret_kept)
{
    _cleanup_(buf_donep) struct buf owner = {0};
    buf_init(&owner, OWNER_CHARS);
    if (strlen(id) <= HEAD_CHARS || strlen(id) >= DPS_OPERATION_BYTES || id[1] != '.' ||
        id[HEAD_CHARS - 1] != '.' || owner_write(registration_id, &owner) ||
        memcmp(id + 2, buf_text(&owner), OWNER_CHARS) != 0)
        return false;
    if (id[0] != DPS_KEPT && id[0] != DPS_GUESSABLE && id[0] != DPS_LOST)
        return false;
    *ret_kept = (enum dps_kept)id[0];
    return true;
}
