/* Expressions: literals, Ref and the functions, checked at compile time and evaluated later. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/text.h"
#include "enroll/template_internal.h"

/* Values of a list during evaluation; on the stack of the function that needs them. */
struct list {
    const char *item[TEMPLATE_MAX_ITEMS];
    size_t count;
};

static const char *const pseudo[] = {
    "AWS::IoT::Certificate::Id",
    "AWS::IoT::Certificate::Country",
    "AWS::IoT::Certificate::Organization",
    "AWS::IoT::Certificate::OrganizationalUnit",
    "AWS::IoT::Certificate::StateName",
    "AWS::IoT::Certificate::CommonName",
    "AWS::IoT::Certificate::SerialNumber",
    "AWS::IoT::Certificate::DistinguishedNameQualifier",
    "Muster::Serial",
    "Muster::Product",
};

/* The one member of a function object; NULL for anything else. */
static const char *function_name(json_t *node, json_t **ret_argument)
{
    if (!json_is_object(node) || json_object_size(node) != 1)
        return NULL;
    void *it = json_object_iter(node);
    const char *key = json_object_iter_key(it);
    if (strcmp(key, "Ref") != 0 && strncmp(key, "Fn::", 4) != 0)
        return NULL;
    *ret_argument = json_object_iter_value(it);
    return key;
}

bool expr_is_function(json_t *node)
{
    json_t *argument;
    return function_name(node, &argument) != NULL;
}

static bool name_declared(const struct template *t, const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(pseudo); i++) {
        if (strcmp(pseudo[i], name) == 0)
            return true;
    }
    return json_object_get(t->parameters, name) != NULL;
}

/* A parameter's name where its value is used. */
static enum err check_name(struct check *c, const char *name, const struct path *p)
{
    if (!name_declared(c->t, name))
        return check_fail(c, p, "parameter \"%.64s\" is not declared", name);
    if (c->before_signing && strcmp(name, "AWS::IoT::Certificate::Id") == 0)
        return check_fail(c, p, "a certificate has no id before it is signed");
    return ERR_OK;
}

static enum err check_ref(struct check *c, json_t *node, const struct path *p)
{
    if (!json_is_string(node))
        return check_fail(c, p, "Ref takes the name of a parameter");
    return check_name(c, json_string_value(node), p);
}

/* An array with between min and max elements. */
static enum err check_array(struct check *c, json_t *node, const struct path *p, size_t min,
                            size_t max)
{
    if (!json_is_array(node) || json_array_size(node) < min || json_array_size(node) > max)
        return check_fail(c, p, "must be an array of %zu to %zu elements", min, max);
    return ERR_OK;
}

static enum err check_literal(struct check *c, json_t *node, const struct path *p, const char *what)
{
    return json_is_string(node) ? ERR_OK : check_fail(c, p, "%s must be a string", what);
}

static enum err check_split(struct check *c, json_t *node, const struct path *p)
{
    enum err e = check_array(c, node, p, 2, 2);
    if (e)
        return e;
    struct path first = {p, NULL, 0}, second = {p, NULL, 1};
    e = check_literal(c, json_array_get(node, 0), &first, "the delimiter");
    if (!e && json_string_length(json_array_get(node, 0)) == 0)
        e = check_fail(c, &first, "the delimiter is empty");
    return e ? e : check_text(c, json_array_get(node, 1), &second);
}

static enum err check_find_in_map(struct check *c, json_t *node, const struct path *p)
{
    enum err e = check_array(c, node, p, 3, 3);
    if (e)
        return e;
    struct path name = {p, NULL, 0};
    json_t *map = json_array_get(node, 0);
    if (json_is_string(map) && !json_object_get(c->t->mappings, json_string_value(map)))
        return check_fail(c, &name, "there is no mapping \"%.64s\"", json_string_value(map));
    for (size_t i = 0; i < 3 && !e; i++) {
        struct path at = {p, NULL, i};
        e = check_text(c, json_array_get(node, i), &at);
    }
    return e;
}

/* An expression that gives a list: an array of texts, Fn::Split, or a mapping's list. */
static enum err check_list(struct check *c, json_t *node, const struct path *p)
{
    json_t *argument = NULL;
    const char *function = function_name(node, &argument);
    struct path inner = {p, function, 0};
    if (function && strcmp(function, "Fn::Split") == 0)
        return check_split(c, argument, &inner);
    if (function && strcmp(function, "Fn::FindInMap") == 0)
        return check_find_in_map(c, argument, &inner);
    enum err e = check_array(c, node, p, 1, TEMPLATE_MAX_ITEMS);
    for (size_t i = 0; i < json_array_size(node) && !e; i++) {
        struct path at = {p, NULL, i};
        e = check_text(c, json_array_get(node, i), &at);
    }
    return e;
}

static enum err check_join(struct check *c, json_t *node, const struct path *p)
{
    enum err e = check_array(c, node, p, 2, 2);
    struct path first = {p, NULL, 0}, second = {p, NULL, 1};
    if (!e)
        e = check_literal(c, json_array_get(node, 0), &first, "the delimiter");
    return e ? e : check_list(c, json_array_get(node, 1), &second);
}

static enum err check_select(struct check *c, json_t *node, const struct path *p)
{
    enum err e = check_array(c, node, p, 2, 2);
    struct path first = {p, NULL, 0}, second = {p, NULL, 1};
    if (e)
        return e;
    if (!json_is_integer(json_array_get(node, 0)))
        e = check_text(c, json_array_get(node, 0), &first);
    return e ? e : check_list(c, json_array_get(node, 1), &second);
}

/* The next ${...} of a Fn::Sub text. Returns the length of what stands before it, and the name;
 * policy variables such as ${iot:ClientId}, known by their single colon, and ${!literal} are no
 * names. */
enum sub_kind { SUB_END, SUB_NAME, SUB_LITERAL, SUB_BROKEN };

static enum sub_kind sub_next(const char *text, size_t *ret_before, const char **ret_name,
                              size_t *ret_len)
{
    const char *open = strstr(text, "${");
    if (!open) {
        *ret_before = strlen(text);
        return SUB_END;
    }
    const char *close = strchr(open, '}');
    *ret_before = (size_t)(open - text);
    if (!close)
        return SUB_BROKEN;
    *ret_name = open + 2;
    *ret_len = (size_t)(close - open - 2);
    if (*ret_len == 0 || *ret_len > TEMPLATE_MAX_KEY_BYTES)
        return SUB_BROKEN;
    bool policy_variable =
        memchr(*ret_name, ':', *ret_len) && !memmem(*ret_name, *ret_len, "::", 2);
    return policy_variable || **ret_name == '!' ? SUB_LITERAL : SUB_NAME;
}

static enum err check_sub_text(struct check *c, const char *text, json_t *variables,
                               const struct path *p)
{
    char name[TEMPLATE_MAX_KEY_BYTES + 1];
    const char *start = NULL;
    size_t before = 0, len = 0;
    enum sub_kind kind;
    while ((kind = sub_next(text, &before, &start, &len)) != SUB_END) {
        if (kind == SUB_BROKEN)
            return check_fail(c, p, "a ${ is not closed, or the name in it is empty or too long");
        snprintf(name, sizeof(name), "%.*s", (int)len, start);
        bool own = json_object_get(variables, name) != NULL;
        if (kind == SUB_NAME && !own && check_name(c, name, p))
            return ERR_INVALID;
        text = start + len + 1;
    }
    return ERR_OK;
}

static enum err check_sub(struct check *c, json_t *node, const struct path *p)
{
    if (json_is_string(node))
        return check_sub_text(c, json_string_value(node), NULL, p);
    enum err e = check_array(c, node, p, 2, 2);
    struct path first = {p, NULL, 0}, second = {p, NULL, 1};
    json_t *variables = json_array_get(node, 1);
    const char *key;
    json_t *value;
    if (!e)
        e = check_literal(c, json_array_get(node, 0), &first, "the text");
    if (!e && !json_is_object(variables))
        e = check_fail(c, &second, "must be an object of variables");
    if (e)
        return e;
    json_object_foreach(variables, key, value)
    {
        struct path at = {&second, key, 0};
        e = check_text(c, value, &at);
        if (e)
            return e;
    }
    return check_sub_text(c, json_string_value(json_array_get(node, 0)), variables, &first);
}

enum err check_text(struct check *c, json_t *node, const struct path *p)
{
    static const struct {
        const char *name;
        enum err (*check)(struct check *c, json_t *node, const struct path *p);
    } functions[] = {
        {"Ref", check_ref},
        {"Fn::Join", check_join},
        {"Fn::Select", check_select},
        {"Fn::Sub", check_sub},
        {"Fn::FindInMap", check_find_in_map},
    };
    json_t *argument = NULL;
    if (json_is_string(node)) {
        if (json_string_length(node) > TEMPLATE_MAX_VALUE_BYTES)
            return check_fail(c, p, "longer than %d bytes", TEMPLATE_MAX_VALUE_BYTES);
        return ERR_OK;
    }
    const char *function = function_name(node, &argument);
    if (!function)
        return check_fail(c, p, "must be a string, Ref or one function");
    struct path inner = {p, function, 0};
    for (size_t i = 0; i < ARRAY_LEN(functions); i++) {
        if (strcmp(functions[i].name, function) == 0)
            return functions[i].check(c, argument, &inner);
    }
    if (strcmp(function, "Fn::Split") == 0)
        return check_fail(c, &inner, "gives a list; use it inside Fn::Join or Fn::Select");
    return check_fail(c, &inner, "there is no such function");
}

static enum err no_memory(const struct eval *ev)
{
    return fault_set(ev->fault, FAULT_TEMPLATE_EVALUATION, "the values are too large");
}

/* A value from outside: bounded, UTF-8, and harmless where it stands. */
static enum err eval_given(const struct eval *ev, const struct template_param *given,
                           const struct path *p, const char **ret_text)
{
    const char *value = given->value;
    size_t n = 0;
    if (strlen(value) > TEMPLATE_MAX_VALUE_BYTES)
        return eval_fail(ev, p, "the value of %.64s is longer than %d bytes", given->name,
                         TEMPLATE_MAX_VALUE_BYTES);
    for (const char *s = value; *s; s += n) {
        n = text_utf8_length(s);
        bool widens = strchr("*?$", *s) != NULL;
        bool breaks_out = *s == '"' || *s == '\\' || (unsigned char)*s < ' ';
        if (n == 0)
            return eval_fail(ev, p, "the value of %.64s is not UTF-8", given->name);
        if (ev->in_policy && widens)
            return eval_fail(ev, p,
                             "the value of %.64s has a wildcard or a variable, which must not come "
                             "into a policy from outside",
                             given->name);
        if (ev->in_text && breaks_out)
            return eval_fail(ev, p,
                             "the value of %.64s has a quote, backslash or control character, "
                             "which a document written as text cannot take",
                             given->name);
    }
    *ret_text = value;
    return ERR_OK;
}

enum err eval_parameter(const struct eval *ev, const char *name, const struct path *p,
                        const char **ret_text)
{
    for (size_t i = 0; i < ev->params->count; i++) {
        if (strcmp(ev->params->item[i].name, name) == 0)
            return eval_given(ev, &ev->params->item[i], p, ret_text);
    }
    const char *fallback =
        json_string_value(json_object_get(json_object_get(ev->t->parameters, name), "Default"));
    if (!fallback)
        return fault_set(ev->fault, FAULT_TEMPLATE_PARAMETER,
                         "\"%.128s\" has neither a value nor a Default", name);
    *ret_text = fallback;
    return ERR_OK;
}

static enum err eval_list(const struct eval *ev, json_t *node, const struct path *p,
                          struct list *ret_list);

static enum err eval_ref(const struct eval *ev, json_t *node, const struct path *p,
                         const char **ret_text)
{
    return eval_parameter(ev, json_string_value(node), p, ret_text);
}

/* What was built must not be longer than a value may be. */
static enum err built_take(const struct eval *ev, const struct buf *b, const struct path *p,
                           const char **ret_text)
{
    if (b->overflow)
        return eval_fail(ev, p, "the value is longer than %d bytes", TEMPLATE_MAX_VALUE_BYTES);
    const char *copy = arena_strdup(ev->arena, buf_text(b));
    if (!copy)
        return no_memory(ev);
    *ret_text = copy;
    return ERR_OK;
}

static enum err eval_join(const struct eval *ev, json_t *node, const struct path *p,
                          const char **ret_text)
{
    struct list list = {.count = 0};
    struct path at = {p, NULL, 1};
    enum err e = eval_list(ev, json_array_get(node, 1), &at, &list);
    if (e)
        return e;
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, TEMPLATE_MAX_VALUE_BYTES);
    for (size_t i = 0; i < list.count; i++) {
        if (i > 0)
            buf_add_text(&b, json_string_value(json_array_get(node, 0)));
        buf_add_text(&b, list.item[i]);
    }
    return built_take(ev, &b, p, ret_text);
}

static enum err eval_select(const struct eval *ev, json_t *node, const struct path *p,
                            const char **ret_text)
{
    struct list list = {.count = 0};
    struct path first = {p, NULL, 0}, second = {p, NULL, 1};
    json_t *position = json_array_get(node, 0);
    int64_t index = json_integer_value(position);
    const char *text = NULL;
    enum err e = json_is_integer(position) ? ERR_OK : eval_text(ev, position, &first, &text);
    if (!e && text && text_parse_int(text, 0, TEMPLATE_MAX_ITEMS, &index))
        e = eval_fail(ev, &first, "\"%.32s\" is no index", text);
    if (!e)
        e = eval_list(ev, json_array_get(node, 1), &second, &list);
    if (e)
        return e;
    if (index < 0 || (size_t)index >= list.count)
        return eval_fail(ev, &first, "there is no element %lld in a list of %zu", (long long)index,
                         list.count);
    *ret_text = list.item[index];
    return ERR_OK;
}

static enum err map_find(const struct eval *ev, json_t *node, const struct path *p,
                         json_t **ret_value)
{
    json_t *level = ev->t->mappings;
    for (size_t i = 0; i < 3; i++) {
        struct path at = {p, NULL, i};
        const char *key = NULL;
        enum err e = eval_text(ev, json_array_get(node, i), &at, &key);
        if (e)
            return e;
        level = json_object_get(level, key);
        if (!level)
            return eval_fail(ev, &at, "the mapping has no key \"%.64s\"", key);
    }
    *ret_value = level;
    return ERR_OK;
}

static enum err eval_find_in_map(const struct eval *ev, json_t *node, const struct path *p,
                                 const char **ret_text)
{
    json_t *value = NULL;
    enum err e = map_find(ev, node, p, &value);
    if (e)
        return e;
    if (!json_is_string(value))
        return eval_fail(ev, p, "the mapping gives a list where a string is needed");
    *ret_text = json_string_value(value);
    return ERR_OK;
}

/* One ${name}: a variable of the call, else a parameter. */
static enum err eval_sub_name(const struct eval *ev, const char *name, json_t *variables,
                              const struct path *p, struct buf *out)
{
    const char *value = NULL;
    json_t *own = json_object_get(variables, name);
    struct path second = {p, NULL, 1}, at = {&second, name, 0};
    enum err e = own ? eval_text(ev, own, &at, &value) : eval_parameter(ev, name, p, &value);
    if (!e)
        buf_add_text(out, value);
    return e;
}

static enum err eval_sub(const struct eval *ev, json_t *node, const struct path *p,
                         const char **ret_text)
{
    bool plain = json_is_string(node);
    const char *text = json_string_value(plain ? node : json_array_get(node, 0));
    json_t *variables = plain ? NULL : json_array_get(node, 1);
    char name[TEMPLATE_MAX_KEY_BYTES + 1];
    const char *start = NULL;
    size_t before = 0, len = 0;
    enum sub_kind kind;
    enum err e = ERR_OK;
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, TEMPLATE_MAX_VALUE_BYTES);
    while (!e && (kind = sub_next(text, &before, &start, &len)) != SUB_END && kind != SUB_BROKEN) {
        buf_add(&b, text, before);
        snprintf(name, sizeof(name), "%.*s", (int)len, start);
        if (kind == SUB_NAME)
            e = eval_sub_name(ev, name, variables, p, &b);
        else
            buf_printf(&b, "${%s}", name[0] == '!' ? name + 1 : name);
        text = start + len + 1;
    }
    if (e)
        return e;
    buf_add_text(&b, text);
    return built_take(ev, &b, p, ret_text);
}

enum err eval_text(const struct eval *ev, json_t *node, const struct path *p, const char **ret_text)
{
    static const struct {
        const char *name;
        enum err (*eval)(const struct eval *ev, json_t *node, const struct path *p,
                         const char **ret_text);
    } functions[] = {
        {"Ref", eval_ref},
        {"Fn::Join", eval_join},
        {"Fn::Select", eval_select},
        {"Fn::Sub", eval_sub},
        {"Fn::FindInMap", eval_find_in_map},
    };
    if (json_is_string(node)) {
        *ret_text = json_string_value(node);
        return ERR_OK;
    }
    json_t *argument = NULL;
    const char *function = function_name(node, &argument);
    struct path inner = {p, function, 0};
    for (size_t i = 0; function && i < ARRAY_LEN(functions); i++) {
        if (strcmp(functions[i].name, function) == 0)
            return functions[i].eval(ev, argument, &inner, ret_text);
    }
    return eval_fail(ev, p, "no expression");
}

static enum err list_add(const struct eval *ev, const struct path *p, struct list *list,
                         const char *text)
{
    if (list->count == TEMPLATE_MAX_ITEMS)
        return eval_fail(ev, p, "a list has at most %d elements", TEMPLATE_MAX_ITEMS);
    list->item[list->count++] = text;
    return ERR_OK;
}

static enum err eval_split(const struct eval *ev, json_t *node, const struct path *p,
                           struct list *list)
{
    const char *delimiter = json_string_value(json_array_get(node, 0));
    struct path at = {p, NULL, 1};
    const char *text = NULL;
    enum err e = eval_text(ev, json_array_get(node, 1), &at, &text);
    while (!e && text) {
        const char *next = strstr(text, delimiter);
        const char *part = next ? arena_copy(ev->arena, text, (size_t)(next - text)) : text;
        e = part ? list_add(ev, p, list, part) : no_memory(ev);
        text = next ? next + strlen(delimiter) : NULL;
    }
    return e;
}

static enum err eval_map_list(const struct eval *ev, json_t *node, const struct path *p,
                              struct list *list)
{
    json_t *value = NULL;
    enum err e = map_find(ev, node, p, &value);
    if (!e && json_is_string(value))
        e = eval_fail(ev, p, "the mapping gives a string where a list is needed");
    for (size_t i = 0; !e && i < json_array_size(value); i++)
        e = list_add(ev, p, list, json_string_value(json_array_get(value, i)));
    return e;
}

static enum err eval_list(const struct eval *ev, json_t *node, const struct path *p,
                          struct list *list)
{
    json_t *argument = NULL;
    const char *function = function_name(node, &argument);
    struct path inner = {p, function, 0};
    if (function && strcmp(function, "Fn::Split") == 0)
        return eval_split(ev, argument, &inner, list);
    if (function)
        return eval_map_list(ev, argument, &inner, list);
    enum err e = ERR_OK;
    for (size_t i = 0; i < json_array_size(node) && !e; i++) {
        struct path at = {p, NULL, i};
        const char *text = NULL;
        e = eval_text(ev, json_array_get(node, i), &at, &text);
        if (!e)
            e = list_add(ev, &at, list, text);
    }
    return e;
}
