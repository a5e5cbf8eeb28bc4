#include "http/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/text.h"

enum { MAX_RANGE_TEXT_BYTES = 64 };

static const struct sockaddr_in *v4(const struct sockaddr_storage *a)
{
    return (const struct sockaddr_in *)a;
}

static const struct sockaddr_in6 *v6(const struct sockaddr_storage *a)
{
    return (const struct sockaddr_in6 *)a;
}

void address_plain(struct sockaddr_storage *address)
{
    if (address->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&v6(address)->sin6_addr))
        return;
    struct sockaddr_in plain = {.sin_family = AF_INET, .sin_port = v6(address)->sin6_port};
    memcpy(&plain.sin_addr, &v6(address)->sin6_addr.s6_addr[12], sizeof(plain.sin_addr));
    memset(address, 0, sizeof(*address));
    memcpy(address, &plain, sizeof(plain));
}

enum err address_parse(const char *text, struct sockaddr_storage *ret_address)
{
    struct sockaddr_in in4 = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    bool is4 = inet_pton(AF_INET, text, &in4.sin_addr) == 1;
    if (!is4 && inet_pton(AF_INET6, text, &in6.sin6_addr) != 1)
        return ERR_INVALID;
    memset(ret_address, 0, sizeof(*ret_address));
    if (is4)
        memcpy(ret_address, &in4, sizeof(in4));
    else
        memcpy(ret_address, &in6, sizeof(in6));
    address_plain(ret_address);
    return ERR_OK;
}

void address_text(const struct sockaddr_storage *address, char ret_text[ADDRESS_TEXT_BYTES])
{
    const char *text = NULL;
    if (address->ss_family == AF_INET)
        text = inet_ntop(AF_INET, &v4(address)->sin_addr, ret_text, ADDRESS_TEXT_BYTES);
    else if (address->ss_family == AF_INET6)
        text = inet_ntop(AF_INET6, &v6(address)->sin6_addr, ret_text, ADDRESS_TEXT_BYTES);
    if (!text)
        snprintf(ret_text, ADDRESS_TEXT_BYTES, "%s",
                 address->ss_family == AF_UNIX ? "unix" : "unknown");
}

socklen_t address_length(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return sizeof(struct sockaddr_in);
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                          : sizeof(struct sockaddr_un);
}

static void bytes_take(const struct sockaddr_storage *a, uint8_t bytes[16])
{
    if (a->ss_family == AF_INET)
        memcpy(bytes, &v4(a)->sin_addr, 4);
    else
        memcpy(bytes, &v6(a)->sin6_addr, 16);
}

static bool bits_equal(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8;
    uint8_t mask = (uint8_t)(0xff00u >> bits % 8);
    return memcmp(a, b, whole) == 0 && (mask == 0 || ((a[whole] ^ b[whole]) & mask) == 0);
}

static enum err range_parse(const char *text, struct address_range *ret)
{
    char copy[MAX_RANGE_TEXT_BYTES];
    struct sockaddr_storage a;
    snprintf(copy, sizeof(copy), "%s", text);
    char *slash = strchr(copy, '/');
    if (slash)
        *slash = '\0';
    enum err e = address_parse(copy, &a);
    if (e)
        return e;
    int64_t most = a.ss_family == AF_INET ? 32 : 128;
    int64_t bits = most;
    if (slash && text_parse_int(slash + 1, 0, most, &bits))
        return ERR_INVALID;
    struct address_range r = {.family = a.ss_family, .bits = (unsigned)bits};
    bytes_take(&a, r.bytes);
    for (unsigned i = r.bits; i < (unsigned)most; i++) {
        if (r.bytes[i / 8] & 0x80u >> i % 8)
            return ERR_INVALID;
    }
    *ret = r;
    return ERR_OK;
}

enum err address_list_parse(const char *text, struct address_list *ret_list)
{
    struct address_list list = {.count = 0};
    text += strspn(text, ", ");
    while (*text) {
        char one[MAX_RANGE_TEXT_BYTES];
        size_t len = strcspn(text, ", ");
        if (len >= sizeof(one) || list.count == ADDRESS_MAX_RANGES)
            return ERR_INVALID;
        memcpy(one, text, len);
        one[len] = '\0';
        enum err e = range_parse(one, &list.ranges[list.count]);
        if (e)
            return e;
        list.count++;
        text += len;
        text += strspn(text, ", ");
    }
    *ret_list = list;
    return ERR_OK;
}

bool address_list_has(const struct address_list *list, const struct sockaddr_storage *address)
{
    uint8_t bytes[16] = {0};
    if (address->ss_family != AF_INET && address->ss_family != AF_INET6)
        return false;
    bytes_take(address, bytes);
    for (size_t i = 0; i < list->count; i++) {
        const struct address_range *r = &list->ranges[i];
        if (r->family == address->ss_family && bits_equal(r->bytes, bytes, r->bits))
            return true;
    }
    return false;
}
