#include "proto/auth.h"

#include <string.h>
#include <strings.h>

#include "base/base64.h"
#include "base/text.h"

static enum err malformed(struct fault *fault, const char *why)
{
    return fault_set(fault, FAULT_AUTH_MALFORMED, "%s", why);
}

/* A token is visible ASCII without blanks. */
static bool token_valid(const char *token)
{
    size_t len = strlen(token);
    if (len == 0 || len > AUTH_MAX_TOKEN_BYTES)
        return false;
    for (; *token; token++) {
        if (*token <= ' ' || *token >= 0x7f)
            return false;
    }
    return true;
}

/* Tokens have no colon, serials may (a MAC address): the last one separates. RFC 7617 would have
 * the first, and no colon in the user. */
static enum err basic_parse(struct arena *arena, const char *encoded, struct device_auth *ret,
                            struct fault *fault)
{
    struct bytes raw;
    if (base64_decode(arena, bytes_text(encoded), &raw))
        return malformed(fault, "Basic credentials are not base64");
    char *user = arena_copy(arena, raw.data, raw.len);
    if (!user)
        return fault_set(fault, FAULT_INTERNAL, "out of memory");
    char *colon = strrchr(user, ':');
    if (!colon)
        return malformed(fault, "Basic credentials have no colon");
    *colon = '\0';
    if (!token_valid(colon + 1))
        return malformed(fault, "the password is not a token");
    if (!text_is_printable_utf8(user))
        return malformed(fault, "the user is not printable text");
    *ret = (struct device_auth){.serial = user[0] ? user : NULL, .token = colon + 1};
    return ERR_OK;
}

enum err auth_parse(struct arena *arena, const char *header, struct device_auth *ret_auth,
                    struct fault *fault)
{
    if (strlen(header) > AUTH_MAX_HEADER_BYTES)
        return malformed(fault, "the header is too long");
    size_t scheme = strcspn(header, " ");
    const char *rest = header + scheme + strspn(header + scheme, " ");
    if (scheme == 5 && strncasecmp(header, "Basic", scheme) == 0)
        return basic_parse(arena, rest, ret_auth, fault);
    if (scheme != 6 || strncasecmp(header, "Bearer", scheme) != 0)
        return malformed(fault, "the scheme is neither Basic nor Bearer");
    char *token = arena_strdup(arena, rest);
    if (!token)
        return fault_set(fault, FAULT_INTERNAL, "out of memory");
    if (!token_valid(token))
        return malformed(fault, "that is no token");
    *ret_auth = (struct device_auth){.token = token};
    return ERR_OK;
}

enum err auth_refuse(struct exchange *x, bool proven)
{
    enum fault_code seen = fault_public(x->fault.code, proven);
    if (seen == FAULT_AUTH_REQUIRED)
        exchange_add_header(x, "WWW-Authenticate", "Basic realm=\"muster\"");
    exchange_problem(x, seen);
    return ERR_DENIED;
}
