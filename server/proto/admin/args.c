/* Arguments out of path, query and body, checked for type, length and range. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/secret.h"
#include "base/text.h"
#include "proto/admin/call.h"

static enum err malformed(struct exchange *x, const char *name, const char *why)
{
    return fault_set(&x->fault, FAULT_REQUEST_MALFORMED, "%.64s %s", name, why);
}

static const struct admin_arg *arg_find(const struct admin_call *call, enum arg_from from,
                                        const char *name)
{
    for (size_t i = 0; i < ADMIN_MAX_ARGS && call->args[i].name; i++) {
        if (call->args[i].from == from && strcmp(call->args[i].name, name) == 0)
            return &call->args[i];
    }
    return NULL;
}

static bool word_known(const char *words, const char *text)
{
    size_t len = strlen(text);
    while (*words) {
        size_t word = strcspn(words, " ");
        if (word == len && memcmp(words, text, len) == 0)
            return true;
        words += word + strspn(words + word, " ");
    }
    return false;
}

static bool text_fits(const struct admin_arg *a, const char *text)
{
    uint8_t digest[SHA256_BYTES];
    size_t max = a->kind == ARG_TEXT && a->max > 0 ? (size_t)a->max : ADMIN_MAX_TEXT_BYTES;
    if (!text || strlen(text) > max)
        return false;
    if (a->kind == ARG_SHA256)
        return text_parse_hex(text, digest, sizeof(digest)) == ERR_OK;
    return !a->words || word_known(a->words, text);
}

/* Path and query give text only. */
static enum err text_add(struct exchange *x, const struct admin_arg *a, const char *text,
                         json_t *args)
{
    int64_t number = 0;
    json_t *value = NULL;
    if (a->kind == ARG_INT) {
        if (text_parse_int(text, a->min, a->max, &number))
            return malformed(x, a->name, "is not a number of its range");
        value = json_integer(number);
    } else {
        if (!text_fits(a, text) || !text_is_printable_utf8(text))
            return malformed(
                x, a->name,
                a->kind == ARG_SHA256
                    ? "is not a SHA-256 in hexadecimal"
                    : "is too long, not printable text, or none of the values it may have");
        value = json_string(text);
    }
    return json_object_set_new(args, a->name, value) == 0 ? ERR_OK : ERR_NO_MEMORY;
}

static bool texts_fit(const struct admin_arg *a, const json_t *value)
{
    if (!json_is_array(value) || json_array_size(value) > (size_t)a->max)
        return false;
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (!text_fits(a, json_string_value(json_array_get(value, i))))
            return false;
    }
    return true;
}

static bool objects_fit(const struct admin_arg *a, const json_t *value)
{
    bool good = json_is_array(value) && json_array_size(value) <= (size_t)a->max;
    for (size_t i = 0; i < json_array_size(value) && good; i++)
        good = json_is_object(json_array_get(value, i));
    return good;
}

static bool value_fits(const struct admin_arg *a, const json_t *value)
{
    switch (a->kind) {
    case ARG_TEXT:
    case ARG_SHA256:
        return text_fits(a, json_string_value(value));
    case ARG_INT:
        return json_is_integer(value) && json_integer_value(value) >= a->min &&
               json_integer_value(value) <= a->max;
    case ARG_BOOL:
        return json_is_boolean(value);
    case ARG_TEXTS:
        return texts_fit(a, value);
    case ARG_OBJECT:
        return json_is_object(value);
    case ARG_OBJECTS:
        return objects_fit(a, value);
    }
    return false;
}

static enum err body_parse(struct exchange *x, json_t **ret_body)
{
    json_error_t why;
    json_t *body =
        json_loadb((const char *)x->body.data, x->body.len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(body)) {
        json_decref(body);
        return malformed(x, "the body", body ? "must be a JSON object" : "is no JSON");
    }
    *ret_body = body;
    return ERR_OK;
}

enum err admin_members_check(const struct admin_call *call, struct exchange *x, json_t *body)
{
    const char *key;
    json_t *value;
    json_object_foreach(body, key, value)
    {
        const struct admin_arg *a = arg_find(call, ARG_BODY, key);
        if (!a)
            return malformed(x, key, "is not a member this call knows");
        if (!json_is_null(value) && !value_fits(a, value))
            return malformed(x, key, "has the wrong type, length or range");
    }
    return ERR_OK;
}

static enum err body_args(const struct admin_call *call, struct exchange *x, json_t *args)
{
    _cleanup_(json_decrefp) json_t *body = NULL;
    const char *key;
    json_t *value;
    if (x->body.len == 0 || call->body_is_document)
        return ERR_OK;
    enum err e = body_parse(x, &body);
    if (e)
        return e;
    e = admin_members_check(call, x, body);
    if (e)
        return e;
    json_object_foreach(body, key, value)
    {
        if (!json_is_null(value) && json_object_set(args, key, value) != 0)
            return ERR_NO_MEMORY;
    }
    return ERR_OK;
}

static const struct admin_arg page_args[] = {
    {"limit", ARG_QUERY, ARG_INT, false, 1, 1000, NULL},
    {"after", ARG_QUERY, ARG_TEXT, false, 0, 256, NULL},
};

static enum err query_args(const struct admin_call *call, struct exchange *x, json_t *args)
{
    for (size_t i = 0; i < x->query_count; i++) {
        const char *name = x->query[i].name;
        const struct admin_arg *a = arg_find(call, ARG_QUERY, name);
        for (size_t k = 0; k < ARRAY_LEN(page_args) && call->list && !a; k++)
            a = strcmp(page_args[k].name, name) == 0 ? &page_args[k] : NULL;
        if (!a)
            return malformed(x, name, "is not a query argument this call knows");
        if (json_object_get(args, name))
            return malformed(x, name, "is given twice");
        enum err e = text_add(x, a, x->query[i].value, args);
        if (e)
            return e;
    }
    return ERR_OK;
}

static enum err path_args(const struct admin_call *call, struct exchange *x, json_t *args)
{
    size_t at = 0;
    enum err e = ERR_OK;
    for (size_t i = 0; i < ADMIN_MAX_ARGS && call->args[i].name && !e; i++) {
        const struct admin_arg *a = &call->args[i];
        if (a->from == ARG_PATH)
            e = text_add(x, a, x->args[at++], args);
        else if (a->from == ARG_TRUE || a->from == ARG_FALSE)
            e = json_object_set_new(args, a->name, json_boolean(a->from == ARG_TRUE)) == 0
                    ? ERR_OK
                    : ERR_NO_MEMORY;
    }
    return e;
}

static enum err required_check(const struct admin_call *call, struct exchange *x,
                               const json_t *args)
{
    for (size_t i = 0; i < ADMIN_MAX_ARGS && call->args[i].name; i++) {
        if (call->args[i].required && !json_object_get(args, call->args[i].name))
            return malformed(x, call->args[i].name, "is missing");
    }
    return ERR_OK;
}

enum err admin_args(const struct admin_call *call, struct exchange *x, json_t **ret_args)
{
    _cleanup_(json_decrefp) json_t *args = json_object();
    enum err e = args ? path_args(call, x, args) : ERR_NO_MEMORY;
    if (!e)
        e = query_args(call, x, args);
    if (!e)
        e = body_args(call, x, args);
    if (!e)
        e = required_check(call, x, args);
    if (!e)
        *ret_args = TAKE_PTR(args);
    return e;
}
