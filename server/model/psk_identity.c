#include "model/psk_identity.h"

#include <ctype.h>
#include <string.h>

static const char secondary_suffix[] = "#2";

/* Takes one name of letters, digits and what else it may have. */
static enum err name_take(struct bytes text, const char *also, char *ret, size_t max_chars)
{
    if (text.len == 0 || text.len > max_chars)
        return ERR_INVALID;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = text.data[i];
        if (c == '\0' || c > 0x7e || (!isalnum(c) && !strchr(also, c)))
            return ERR_INVALID;
    }
    memcpy(ret, text.data, text.len);
    ret[text.len] = '\0';
    return ERR_OK;
}

static bool suffix_take(struct bytes *text)
{
    size_t len = sizeof(secondary_suffix) - 1;
    if (text->len < len || memcmp(text->data + text->len - len, secondary_suffix, len) != 0)
        return false;
    text->len -= len;
    return true;
}

enum err psk_identity_parse(struct bytes text, struct psk_identity *ret_identity)
{
    struct psk_identity id = {.secondary = false};
    const uint8_t *slash = text.len > 0 && text.len <= PSK_IDENTITY_MAX_CHARS
                               ? memchr(text.data, '/', text.len)
                               : NULL;
    if (!slash)
        return ERR_INVALID;
    id.secondary = suffix_take(&text);
    size_t at = (size_t)(slash - text.data);
    if (at >= text.len)
        return ERR_INVALID;
    enum err e = name_take(bytes_of(text.data, at), "_.-", id.product, PRODUCT_NAME_MAX_CHARS);
    if (!e)
        e = name_take(bytes_of(slash + 1, text.len - at - 1), "._:-", id.serial, SERIAL_MAX_CHARS);
    if (!e)
        *ret_identity = id;
    return e;
}
