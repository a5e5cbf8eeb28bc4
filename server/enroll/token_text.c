#include "enroll/token_text.h"

#include <stdio.h>
#include <string.h>

#include "base/base64.h"

/* base64url without padding (RFC 4648 section 5): fits HTTP Basic, URLs and QR codes. */
static void url_safe(char *text)
{
    for (; *text; text++) {
        if (*text == '+')
            *text = '-';
        else if (*text == '/')
            *text = '_';
        else if (*text == '=')
            *text = '\0';
    }
}

enum err token_text_new(const char *prefix, char ret_text[TOKEN_TEXT_BYTES],
                        uint8_t ret_hash[SHA256_BYTES])
{
    uint8_t raw[TOKEN_RANDOM_BYTES];
    char text[TOKEN_TEXT_BYTES];
    struct buf b;
    enum err e = secret_random(raw, sizeof(raw));
    if (e)
        return e;
    buf_init(&b, TOKEN_TEXT_BYTES);
    base64_encode(&b, bytes_of(raw, sizeof(raw)));
    int n = snprintf(text, sizeof(text), "%s%s", prefix, buf_text(&b));
    buf_done(&b);
    secret_cleanse(raw, sizeof(raw));
    if (n < 0 || (size_t)n >= sizeof(text))
        return ERR_INVALID;
    url_safe(text);
    uint8_t hash[SHA256_BYTES];
    e = digest_sha256(bytes_text(text), hash);
    if (e)
        return e;
    memcpy(ret_text, text, sizeof(text));
    memcpy(ret_hash, hash, sizeof(hash));
    return ERR_OK;
}
