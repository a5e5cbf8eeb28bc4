#include "base/base64.h"

#include <stdbool.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct buf *b, struct bytes in)
{
    size_t i = 0;
    for (; i + 2 < in.len; i += 3) {
        uint32_t v = (uint32_t)in.data[i] << 16 | (uint32_t)in.data[i + 1] << 8 | in.data[i + 2];
        char four[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63], alphabet[v >> 6 & 63],
                        alphabet[v & 63]};
        buf_add(b, four, 4);
    }
    if (in.len - i == 1) {
        char four[4] = {alphabet[in.data[i] >> 2], alphabet[(in.data[i] & 3) << 4], '=', '='};
        buf_add(b, four, 4);
    } else if (in.len - i == 2) {
        uint32_t v = (uint32_t)in.data[i] << 8 | in.data[i + 1];
        char four[4] = {alphabet[v >> 10], alphabet[v >> 4 & 63], alphabet[(v & 15) << 2], '='};
        buf_add(b, four, 4);
    }
}

static int sextet(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    return c == '/' ? 63 : -1;
}

static bool is_space(uint8_t c)
{
    return c == '\r' || c == '\n' || c == ' ' || c == '\t';
}

/* The decoder's state between characters: a group of four is collected in bits. */
struct group {
    uint32_t bits;
    unsigned chars;
    unsigned pads;
};

/* Takes one character that is not white space. */
static enum err group_add(struct group *g, uint8_t c)
{
    if (c == '=') {
        if (g->chars + g->pads < 2 || g->chars + g->pads > 3)
            return ERR_INVALID;
        g->pads++;
        return ERR_OK;
    }
    int v = sextet(c);
    if (v < 0 || g->pads > 0)
        return ERR_INVALID;
    g->bits = g->bits << 6 | (uint32_t)v;
    g->chars++;
    return ERR_OK;
}

/* Writes the bytes of a last, padded group. */
static enum err group_finish(const struct group *g, uint8_t *out, size_t *len)
{
    if (g->chars == 0)
        return g->pads == 0 ? ERR_OK : ERR_INVALID;
    if (g->chars + g->pads != 4)
        return ERR_INVALID;
    if (g->chars == 2) {
        if (g->bits & 15)
            return ERR_INVALID;
        out[(*len)++] = (uint8_t)(g->bits >> 4);
        return ERR_OK;
    }
    if (g->bits & 3)
        return ERR_INVALID;
    out[(*len)++] = (uint8_t)(g->bits >> 10);
    out[(*len)++] = (uint8_t)(g->bits >> 2);
    return ERR_OK;
}

enum err base64_decode(struct arena *a, struct bytes in, struct bytes *ret_out)
{
    uint8_t *out = arena_alloc(a, in.len / 4 * 3 + 4);
    if (!out)
        return ERR_NO_MEMORY;
    size_t len = 0;
    struct group g = {0};
    for (size_t i = 0; i < in.len; i++) {
        if (is_space(in.data[i]))
            continue;
        enum err e = group_add(&g, in.data[i]);
        if (e)
            return e;
        if (g.chars == 4) {
            out[len++] = (uint8_t)(g.bits >> 16);
            out[len++] = (uint8_t)(g.bits >> 8);
            out[len++] = (uint8_t)g.bits;
            g = (struct group){0};
        }
    }
    enum err e = group_finish(&g, out, &len);
    if (e)
        return e;
    *ret_out = bytes_of(out, len);
    return ERR_OK;
}

enum err base64url_decode(struct arena *a, struct bytes in, struct bytes *ret_out)
{
    char *copy = arena_alloc(a, in.len + 4);
    if (!copy)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = in.data[i];
        if (c == '=' || c == '+' || c == '/' || is_space(c))
            return ERR_INVALID;
        copy[i] = (char)(c == '-' ? '+' : c == '_' ? '/' : c);
    }
    size_t len = in.len;
    while (len % 4 != 0)
        copy[len++] = '=';
    return base64_decode(a, bytes_of(copy, len), ret_out);
}
