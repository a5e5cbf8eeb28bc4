#include "pki/identity.h"

#include <string.h>

#include "pki/der.h"

enum { MAX_NAMES = 64 };

static const char prefix[] = "urn:muster:";

enum err identity_read(struct bytes san_der, struct arena *arena, struct identity *ret_identity)
{
    struct der_reader whole = der_read(san_der);
    struct der_reader names = der_read(der_next(&whole, DER_SEQUENCE));
    struct bytes found = {0};
    size_t len = sizeof(prefix) - 1;
    for (int i = 0; i < MAX_NAMES && der_peek(&names) != DER_NOTHING; i++) {
        enum der_tag tag = der_peek(&names);
        struct bytes value = der_next(&names, tag);
        if (tag == DER_NAME_URI && value.len > len && memcmp(value.data, prefix, len) == 0)
            found = bytes_of(value.data + len, value.len - len);
    }
    if (found.len == 0 || names.broken || memchr(found.data, '\0', found.len))
        return ERR_NOT_FOUND;
    char *product = arena_copy(arena, found.data, found.len);
    char *colon = product ? strchr(product, ':') : NULL;
    if (!product)
        return ERR_NO_MEMORY;
    if (!colon || colon == product || colon[1] == '\0')
        return ERR_NOT_FOUND;
    *colon = '\0';
    *ret_identity = (struct identity){product, colon + 1};
    return ERR_OK;
}
