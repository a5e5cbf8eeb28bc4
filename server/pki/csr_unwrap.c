/* Out of the wrappings in which clients send a request. */
#include <string.h>

#include "base/base64.h"
#include "pki/csr.h"

enum { DER_SEQUENCE = 0x30, MAX_BODY_BYTES = 2 * CSR_MAX_BYTES };

/* Base64 never starts with a control character, DER of a request always with SEQUENCE and a
 * length in the long form, of which the second byte is no letter of base64. */
static bool looks_like_der(struct bytes b)
{
    return b.len > 2 && b.data[0] == DER_SEQUENCE && (b.data[1] & 0x80) != 0;
}

static struct bytes trim(struct bytes b)
{
    while (b.len > 0 && strchr(" \t\r\n", b.data[0]) && b.data[0] != '\0')
        b = bytes_of(b.data + 1, b.len - 1);
    return b;
}

static const uint8_t *find(struct bytes b, const char *text)
{
    return b.len > 0 ? memmem(b.data, b.len, text, strlen(text)) : NULL;
}

/* What stands between the first BEGIN line and its END. */
static enum err armour_strip(struct bytes body, struct bytes *ret_inner)
{
    static const char *const labels[][2] = {
        {"-----BEGIN CERTIFICATE REQUEST-----", "-----END CERTIFICATE REQUEST-----"},
        {"-----BEGIN NEW CERTIFICATE REQUEST-----", "-----END NEW CERTIFICATE REQUEST-----"},
    };
    for (size_t i = 0; i < ARRAY_LEN(labels); i++) {
        const uint8_t *begin = find(body, labels[i][0]);
        if (!begin)
            continue;
        begin += strlen(labels[i][0]);
        size_t rest = (size_t)(body.data + body.len - begin);
        const uint8_t *end = find(bytes_of(begin, rest), labels[i][1]);
        if (!end)
            return ERR_INVALID;
        *ret_inner = bytes_of(begin, (size_t)(end - begin));
        return ERR_OK;
    }
    return ERR_INVALID;
}

enum err csr_unwrap(struct arena *arena, struct bytes body, struct bytes *ret_der)
{
    struct bytes der = {0};
    if (body.len == 0 || body.len > MAX_BODY_BYTES)
        return ERR_INVALID;
    if (looks_like_der(body)) {
        if (body.len > CSR_MAX_BYTES)
            return ERR_INVALID;
        *ret_der = body;
        return ERR_OK;
    }
    struct bytes text = trim(body);
    if (text.len > 0 && text.data[0] == '-' && armour_strip(text, &text))
        return ERR_INVALID;
    enum err e = base64_decode(arena, text, &der);
    if (e)
        return e;
    if (der.len == 0 || der.len > CSR_MAX_BYTES)
        return ERR_INVALID;
    /* the PEM text as a whole in base64: two clients of the field do that */
    if (der.data[0] == '-') {
        if (armour_strip(der, &text))
            return ERR_INVALID;
        return base64_decode(arena, text, ret_der);
    }
    *ret_der = der;
    return ERR_OK;
}
