#include "http/proxy_v2.h"

#include <netinet/in.h>
#include <string.h>

#include "http/address.h"

static const uint8_t signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                      0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

enum {
    VERSION_2 = 0x20,
    COMMAND_LOCAL = 0x0,
    COMMAND_PROXY = 0x1,
    FAMILY_UNSPEC = 0x00,
    FAMILY_TCP4 = 0x11,
    FAMILY_TCP6 = 0x21,
    TCP4_BYTES = 12, /* two addresses and two ports */
    TCP6_BYTES = 36,
};

/* Of what stands behind the fixed part. */
static enum err least_length(uint8_t command, uint8_t family, size_t *ret_len)
{
    if (command == COMMAND_LOCAL || family == FAMILY_UNSPEC)
        *ret_len = 0;
    else if (family == FAMILY_TCP4)
        *ret_len = TCP4_BYTES;
    else if (family == FAMILY_TCP6)
        *ret_len = TCP6_BYTES;
    else
        return ERR_INVALID;
    return ERR_OK;
}

enum err proxy_v2_length(struct bytes fixed, size_t *ret_len)
{
    size_t least = 0;
    if (fixed.len < PROXY_V2_FIXED_BYTES || memcmp(fixed.data, signature, sizeof(signature)) != 0)
        return ERR_INVALID;
    uint8_t command = fixed.data[12] ^ VERSION_2;
    if (command != COMMAND_LOCAL && command != COMMAND_PROXY)
        return ERR_INVALID;
    size_t behind = (size_t)fixed.data[14] << 8 | fixed.data[15];
    enum err e = least_length(command, fixed.data[13], &least);
    if (e || behind < least || PROXY_V2_FIXED_BYTES + behind > PROXY_V2_MAX_BYTES)
        return ERR_INVALID;
    *ret_len = PROXY_V2_FIXED_BYTES + behind;
    return ERR_OK;
}

enum err proxy_v2_decode(struct bytes header, struct proxy_v2 *ret_proxy)
{
    size_t len = 0;
    struct proxy_v2 p = {.local = true};
    enum err e = proxy_v2_length(header, &len);
    if (e || len != header.len)
        return ERR_INVALID;
    const uint8_t *at = header.data + PROXY_V2_FIXED_BYTES;
    bool proxied = header.data[12] == (VERSION_2 | COMMAND_PROXY);
    if (proxied && header.data[13] == FAMILY_TCP4) {
        struct sockaddr_in in4 = {.sin_family = AF_INET};
        memcpy(&in4.sin_addr, at, 4);
        memcpy(&in4.sin_port, at + 8, 2);
        memcpy(&p.source, &in4, sizeof(in4));
        p.local = false;
    } else if (proxied && header.data[13] == FAMILY_TCP6) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        memcpy(&in6.sin6_addr, at, 16);
        memcpy(&in6.sin6_port, at + 32, 2);
        memcpy(&p.source, &in6, sizeof(in6));
        address_plain(&p.source);
        p.local = false;
    }
    *ret_proxy = p;
    return ERR_OK;
}
