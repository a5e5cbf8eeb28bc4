#include "base/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_tail(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

size_t text_utf8_length(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] == 0)
        return 0;
    if (u[0] < 0x80)
        return 1;
    if (u[0] >= 0xc2 && u[0] <= 0xdf)
        return is_tail(u[1]) ? 2 : 0;
    if (u[0] >= 0xe0 && u[0] <= 0xef) {
        if (!is_tail(u[1]) || !is_tail(u[2]))
            return 0;
        bool overlong = u[0] == 0xe0 && u[1] < 0xa0;
        bool surrogate = u[0] == 0xed && u[1] > 0x9f;
        return overlong || surrogate ? 0 : 3;
    }
    if (u[0] >= 0xf0 && u[0] <= 0xf4) {
        if (!is_tail(u[1]) || !is_tail(u[2]) || !is_tail(u[3]))
            return 0;
        bool overlong = u[0] == 0xf0 && u[1] < 0x90;
        bool beyond = u[0] == 0xf4 && u[1] > 0x8f;
        return overlong || beyond ? 0 : 4;
    }
    return 0;
}

bool text_is_printable_utf8(const char *s)
{
    while (*s) {
        size_t n = text_utf8_length(s);
        if (n == 0 || (n == 1 && ((unsigned char)*s < 0x20 || *s == 0x7f)))
            return false;
        s += n;
    }
    return true;
}

static const char hex_digits[] = "0123456789abcdef";

void text_add_hex(struct buf *b, struct bytes in)
{
    char piece[256];
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++) {
        piece[n++] = hex_digits[in.data[i] >> 4];
        piece[n++] = hex_digits[in.data[i] & 15];
        if (n == sizeof(piece) || i + 1 == in.len) {
            buf_add(b, piece, n);
            n = 0;
        }
    }
}

char *text_hex(struct arena *a, struct bytes in)
{
    char *out = arena_alloc(a, in.len * 2 + 1);
    if (!out)
        return NULL;
    for (size_t i = 0; i < in.len; i++) {
        out[2 * i] = hex_digits[in.data[i] >> 4];
        out[2 * i + 1] = hex_digits[in.data[i] & 15];
    }
    return out;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum err text_parse_hex(const char *s, uint8_t *ret_data, size_t ret_len)
{
    if (strlen(s) != ret_len * 2)
        return ERR_INVALID;
    for (size_t i = 0; i < ret_len * 2; i++) {
        if (hex_value(s[i]) < 0)
            return ERR_INVALID;
    }
    for (size_t i = 0; i < ret_len; i++)
        ret_data[i] = (uint8_t)(hex_value(s[2 * i]) << 4 | hex_value(s[2 * i + 1]));
    return ERR_OK;
}

enum err text_parse_int(const char *s, int64_t min, int64_t max, int64_t *ret_value)
{
    const char *digits = *s == '-' ? s + 1 : s;
    size_t len = strlen(digits);
    if (len == 0 || len > 19 || strspn(digits, "0123456789") != len)
        return ERR_INVALID;
    errno = 0;
    long long v = strtoll(s, NULL, 10);
    if (errno != 0 || v < min || v > max)
        return ERR_INVALID;
    *ret_value = v;
    return ERR_OK;
}

static int64_t unit_seconds(char unit)
{
    switch (unit) {
    case 's':
        return 1;
    case 'm':
        return 60;
    case 'h':
        return 3600;
    case 'd':
        return 86400;
    case 'w':
        return 7 * 86400;
    case 'y':
        return 365 * 86400LL;
    default:
        return 0;
    }
}

enum err text_parse_duration(const char *s, int64_t max_s, int64_t *ret_seconds)
{
    size_t digits = strspn(s, "0123456789");
    if (digits == 0 || digits > 10 || s[digits] == '\0' || s[digits + 1] != '\0')
        return ERR_INVALID;
    int64_t unit = unit_seconds(s[digits]);
    int64_t n = strtoll(s, NULL, 10);
    if (unit == 0 || n > max_s / unit)
        return ERR_INVALID;
    *ret_seconds = n * unit;
    return ERR_OK;
}

bool text_equal_nocase(const char *a, const char *b)
{
    return strcasecmp(a, b) == 0;
}

enum err text_url_decode(char *s)
{
    char *out = s;
    for (; *s; s++) {
        if (*s != '%') {
            *out++ = *s;
            continue;
        }
        int hi = hex_value(s[1]);
        int lo = hi < 0 ? -1 : hex_value(s[2]);
        if (lo < 0 || (hi == 0 && lo == 0))
            return ERR_INVALID;
        *out++ = (char)(hi << 4 | lo);
        s += 2;
    }
    *out = '\0';
    return ERR_OK;
}

void text_add_url(struct buf *b, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                     strchr("-._~", c);
        if (plain)
            buf_add_char(b, (char)c);
        else
            buf_printf(b, "%%%02X", c);
    }
}
