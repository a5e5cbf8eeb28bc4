#include "proto/admin/allowlist_lines.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"

enum { MAX_FIELDS = 3 };

static enum err reject(char *reason, const char *why)
{
    snprintf(reason, ALLOWLIST_REASON_BYTES, "%s", why);
    return ERR_INVALID;
}

/* Printable ASCII only, so that a report can be shown as it is. */
static void shown_set(struct allowlist_line *l, const char *serial)
{
    size_t n = 0;
    for (; serial[n] && n < SERIAL_MAX_CHARS; n++)
        l->shown[n] = serial[n] >= ' ' && serial[n] < 0x7f ? serial[n] : '?';
    l->shown[n] = '\0';
}

static enum err fields_take(const struct serial_rule *rule, const char *serial, const char *pin,
                            const char *batch, struct allowlist_line *l, char *reason)
{
    shown_set(l, serial);
    if (serial_parse(rule, serial, &l->serial))
        return reject(reason, "the serial is not 1 to 64 characters of A-Z a-z 0-9 . _ : -");
    if (pin && pin[0] != '\0') {
        if (text_parse_hex(pin, l->pin, sizeof(l->pin)))
            return reject(reason, "the pin is not a SHA-256 in hexadecimal");
        l->pinned = true;
    }
    if (!batch)
        return ERR_OK;
    if (strlen(batch) > ALLOWLIST_MAX_BATCH_BYTES || !text_is_printable_utf8(batch))
        return reject(reason, "the batch is too long or not printable text");
    snprintf(l->batch, sizeof(l->batch), "%s", batch);
    return ERR_OK;
}

static char *trim(char *s)
{
    s += strspn(s, " \t");
    size_t len = strlen(s);
    while (len > 0 && strchr(" \t\r", s[len - 1]))
        s[--len] = '\0';
    return s;
}

/* A field may stand in double quotes; a quote inside it is not supported, serials have none. */
static char *unquote(char *s)
{
    s = trim(s);
    size_t len = strlen(s);
    if (len >= 2 && s[0] == '"' && s[len - 1] == '"') {
        s[len - 1] = '\0';
        s++;
    }
    return s;
}

static enum err csv_parse(const struct serial_rule *rule, char *text, size_t number,
                          struct allowlist_line *l, char *reason)
{
    char *fields[MAX_FIELDS] = {0};
    size_t count = 0;
    text = trim(text);
    if (text[0] == '\0' || text[0] == '#') {
        l->skip = true;
        return ERR_OK;
    }
    for (char *rest = text; rest;) {
        char *field = strsep(&rest, ",");
        if (count == MAX_FIELDS)
            return reject(reason, "more than three fields: serial, pin, batch");
        fields[count++] = unquote(field);
    }
    if (number == 1 && strcasecmp(fields[0], "serial") == 0) {
        l->skip = true;
        return ERR_OK;
    }
    return fields_take(rule, fields[0], fields[1], fields[2], l, reason);
}

static enum err json_take(const struct serial_rule *rule, json_t *object, struct allowlist_line *l,
                          char *reason)
{
    static const char *const members[] = {"serial", "spki_pin", "batch"};
    const char *values[MAX_FIELDS] = {0};
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (i < MAX_FIELDS && strcmp(members[i], key) != 0)
            i++;
        if (i == MAX_FIELDS)
            return reject(reason, "a member that is not serial, spki_pin or batch");
        if (!json_is_string(value) && !json_is_null(value))
            return reject(reason, "a member that is not a string");
        values[i] = json_string_value(value);
    }
    if (!values[0])
        return reject(reason, "no serial");
    return fields_take(rule, values[0], values[1], values[2], l, reason);
}

static enum err json_parse(const struct serial_rule *rule, char *text, struct allowlist_line *l,
                           char *reason)
{
    text = trim(text);
    if (text[0] == '\0') {
        l->skip = true;
        return ERR_OK;
    }
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    enum err e = json_is_object(object) ? json_take(rule, object, l, reason)
                                        : reject(reason, "no JSON object");
    json_decref(object);
    return e;
}

enum err allowlist_line_parse(enum allowlist_format format, const struct serial_rule *rule,
                              const char *text, size_t len, size_t number,
                              struct allowlist_line *ret_line,
                              char ret_reason[ALLOWLIST_REASON_BYTES])
{
    char copy[ALLOWLIST_MAX_LINE_BYTES + 1];
    *ret_line = (struct allowlist_line){.skip = false};
    if (len > ALLOWLIST_MAX_LINE_BYTES)
        return reject(ret_reason, "the line is longer than 1024 bytes");
    if (memchr(text, '\0', len))
        return reject(ret_reason, "the line has a NUL");
    memcpy(copy, text, len);
    copy[len] = '\0';
    return format == ALLOWLIST_CSV ? csv_parse(rule, copy, number, ret_line, ret_reason)
                                   : json_parse(rule, copy, ret_line, ret_reason);
}
