#include "base/json_out.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/base64.h"
#include "base/text.h"

/* Separates members: nothing after an opening bracket or a key. */
static void json_comma(struct buf *b)
{
    if (b->len == 0)
        return;
    char last = (char)b->data[b->len - 1];
    if (last != '{' && last != '[' && last != ':' && last != '\n')
        buf_add_char(b, ',');
}

static void json_escape_char(struct buf *b, unsigned char c)
{
    switch (c) {
    case '"':
        buf_add_text(b, "\\\"");
        return;
    case '\\':
        buf_add_text(b, "\\\\");
        return;
    case '\n':
        buf_add_text(b, "\\n");
        return;
    case '\r':
        buf_add_text(b, "\\r");
        return;
    case '\t':
        buf_add_text(b, "\\t");
        return;
    default:
        if (c < 0x20 || c == 0x7f)
            buf_printf(b, "\\u%04x", c);
        else
            buf_add_char(b, (char)c);
    }
}

/* How much of s stands in JSON as it is. */
static size_t json_plain(const char *s)
{
    size_t n = 0;
    while ((unsigned char)s[n] >= 0x20 && (unsigned char)s[n] < 0x7f && s[n] != '"' && s[n] != '\\')
        n++;
    return n;
}

static void json_string(struct buf *b, const char *s)
{
    buf_add_char(b, '"');
    for (;;) {
        size_t plain = json_plain(s);
        buf_add(b, s, plain);
        s += plain;
        if (!*s)
            break;
        size_t n = text_utf8_length(s);
        if (n == 0) {
            buf_add_text(b, "\\ufffd");
            s++;
        } else if (n == 1) {
            json_escape_char(b, (unsigned char)*s++);
        } else {
            buf_add(b, s, n);
            s += n;
        }
    }
    buf_add_char(b, '"');
}

void json_begin_object(struct buf *b)
{
    json_comma(b);
    buf_add_char(b, '{');
}

void json_end_object(struct buf *b)
{
    buf_add_char(b, '}');
}

void json_begin_array(struct buf *b)
{
    json_comma(b);
    buf_add_char(b, '[');
}

void json_end_array(struct buf *b)
{
    buf_add_char(b, ']');
}

void json_key(struct buf *b, const char *key)
{
    json_comma(b);
    json_string(b, key);
    buf_add_char(b, ':');
}

void json_text(struct buf *b, const char *key, const char *value)
{
    json_key(b, key);
    if (value)
        json_string(b, value);
    else
        buf_add_text(b, "null");
}

void json_int(struct buf *b, const char *key, int64_t value)
{
    json_key(b, key);
    buf_printf(b, "%" PRId64, value);
}

void json_base64(struct buf *b, const char *key, struct bytes value)
{
    json_key(b, key);
    buf_add_char(b, '"');
    base64_encode(b, value);
    buf_add_char(b, '"');
}

void json_bool(struct buf *b, const char *key, bool value)
{
    json_key(b, key);
    buf_add_text(b, value ? "true" : "false");
}

void json_hex(struct buf *b, const char *key, struct bytes value)
{
    json_key(b, key);
    if (!value.data) {
        buf_add_text(b, "null");
        return;
    }
    buf_add_char(b, '"');
    text_add_hex(b, value);
    buf_add_char(b, '"');
}

void json_raw(struct buf *b, const char *key, const char *value)
{
    json_key(b, key);
    buf_add_text(b, value ? value : "null");
}

void json_item_text(struct buf *b, const char *value)
{
    json_comma(b);
    json_string(b, value);
}
