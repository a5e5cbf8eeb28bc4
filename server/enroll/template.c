#include "enroll/template.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "enroll/template_internal.h"

void path_write(const struct path *p, char *out, size_t len)
{
    if (!p) {
        snprintf(out, len, "$");
        return;
    }
    path_write(p->up, out, len);
    size_t used = strlen(out);
    if (p->key)
        snprintf(out + used, len - used, ".%s", p->key);
    else
        snprintf(out + used, len - used, "[%zu]", p->index);
}

enum err check_fail(struct check *c, const struct path *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->error->message, sizeof(c->error->message), fmt, ap);
    va_end(ap);
    path_write(p, c->error->path, sizeof(c->error->path));
    return ERR_INVALID;
}

enum err eval_fail(const struct eval *ev, const struct path *p, const char *fmt, ...)
{
    char where[160], why[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    path_write(p, where, sizeof(where));
    return fault_set(ev->fault, FAULT_TEMPLATE_EVALUATION, "%s: %s", where, why);
}

enum err check_members(struct check *c, json_t *object, const struct path *p,
                       const char *const *names)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return check_fail(c, p, "must be an object");
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (names[i] && strcmp(names[i], key) != 0)
            i++;
        struct path at = {p, key, 0};
        if (!names[i])
            return check_fail(c, &at, "there is no such member");
    }
    return ERR_OK;
}

/* Depth first, bounded by jansson's own limit of nesting while parsing. */
static enum err check_depth(struct check *c, json_t *node, const struct path *p, int depth)
{
    const char *key;
    json_t *value;
    size_t i;
    if (depth > TEMPLATE_MAX_DEPTH)
        return check_fail(c, p, "nested deeper than %d levels", TEMPLATE_MAX_DEPTH);
    json_object_foreach(node, key, value)
    {
        struct path at = {p, key, 0};
        if (strlen(key) > TEMPLATE_MAX_KEY_BYTES)
            return check_fail(c, p, "a member's name is longer than %d bytes",
                              TEMPLATE_MAX_KEY_BYTES);
        if (check_depth(c, value, &at, depth + 1))
            return ERR_INVALID;
    }
    json_array_foreach(node, i, value)
    {
        struct path at = {p, NULL, i};
        if (check_depth(c, value, &at, depth + 1))
            return ERR_INVALID;
    }
    return ERR_OK;
}

/* A string that an evaluation may return as it is. */
static enum err check_value(struct check *c, json_t *node, const struct path *p)
{
    if (!json_is_string(node))
        return check_fail(c, p, "must be a string");
    if (json_string_length(node) > TEMPLATE_MAX_VALUE_BYTES)
        return check_fail(c, p, "longer than %d bytes", TEMPLATE_MAX_VALUE_BYTES);
    return ERR_OK;
}

static enum err check_parameter(struct check *c, json_t *node, const struct path *p)
{
    static const char *const members[] = {"Type", "Default", "Description", NULL};
    enum err e = check_members(c, node, p, members);
    if (e)
        return e;
    struct path type = {p, "Type", 0}, fallback = {p, "Default", 0};
    const char *kind = json_string_value(json_object_get(node, "Type"));
    if (!kind || strcmp(kind, "String") != 0)
        return check_fail(c, &type, "must be \"String\"");
    json_t *value = json_object_get(node, "Default");
    return value ? check_value(c, value, &fallback) : ERR_OK;
}

static enum err check_parameters(struct check *c, json_t *node, const struct path *p)
{
    const char *key;
    json_t *value;
    if (!json_is_object(node))
        return check_fail(c, p, "must be an object");
    if (json_object_size(node) > TEMPLATE_MAX_DECLARED)
        return check_fail(c, p, "declares more than %d parameters", TEMPLATE_MAX_DECLARED);
    json_object_foreach(node, key, value)
    {
        struct path at = {p, key, 0};
        enum err e = check_parameter(c, value, &at);
        if (e)
            return e;
    }
    c->t->parameters = node;
    return ERR_OK;
}

static enum err check_map_value(struct check *c, json_t *node, const struct path *p)
{
    size_t i;
    json_t *item;
    if (json_is_string(node))
        return check_value(c, node, p);
    if (!json_is_array(node) || json_array_size(node) > TEMPLATE_MAX_ITEMS)
        return check_fail(c, p, "must be a string or an array of at most %d strings",
                          TEMPLATE_MAX_ITEMS);
    json_array_foreach(node, i, item)
    {
        struct path at = {p, NULL, i};
        if (check_value(c, item, &at))
            return ERR_INVALID;
    }
    return ERR_OK;
}

/* Two levels of names above the values. */
static enum err check_map_level(struct check *c, json_t *node, const struct path *p, int levels)
{
    const char *key;
    json_t *value;
    if (levels == 0)
        return check_map_value(c, node, p);
    if (!json_is_object(node))
        return check_fail(c, p, "must be an object");
    json_object_foreach(node, key, value)
    {
        struct path at = {p, key, 0};
        enum err e = check_map_level(c, value, &at, levels - 1);
        if (e)
            return e;
    }
    return ERR_OK;
}

static enum err check_mappings(struct check *c, json_t *node, const struct path *p)
{
    enum err e = check_map_level(c, node, p, 3);
    if (!e)
        c->t->mappings = node;
    return e;
}

static enum err check_configuration(struct check *c, json_t *node, const struct path *p)
{
    const char *key;
    json_t *value;
    if (!json_is_object(node) || json_object_size(node) > TEMPLATE_MAX_ITEMS)
        return check_fail(c, p, "must be an object of at most %d members", TEMPLATE_MAX_ITEMS);
    json_object_foreach(node, key, value)
    {
        struct path at = {p, key, 0};
        enum err e = check_text(c, value, &at);
        if (e)
            return e;
    }
    c->t->configuration = node;
    return ERR_OK;
}

static enum err check_description(struct check *c, json_t *node, const struct path *p)
{
    return json_is_string(node) ? ERR_OK : check_fail(c, p, "must be a string");
}

/* Parameters and Mappings first: the rest refers to them. */
static enum err check_document(struct check *c)
{
    static const struct {
        const char *name;
        enum err (*check)(struct check *c, json_t *node, const struct path *p);
    } sections[] = {
        {"Description", check_description},
        {"Parameters", check_parameters},
        {"Mappings", check_mappings},
        {"Resources", check_resources},
        {"DeviceConfiguration", check_configuration},
    };
    static const char *const members[] = {"Description", "Parameters",          "Mappings",
                                          "Resources",   "DeviceConfiguration", "Muster",
                                          NULL};
    enum err e = check_members(c, c->t->document, NULL, members);
    if (!e)
        e = check_depth(c, c->t->document, NULL, 0);
    for (size_t i = 0; i < ARRAY_LEN(sections) && !e; i++) {
        struct path at = {NULL, sections[i].name, 0};
        json_t *node = json_object_get(c->t->document, sections[i].name);
        if (node)
            e = sections[i].check(c, node, &at);
    }
    struct path muster = {NULL, "Muster", 0};
    c->before_signing = true;
    return e ? e : check_muster(c, json_object_get(c->t->document, "Muster"), &muster);
}

enum err template_compile(const char *text, size_t len, struct template **ret_template,
                          struct template_error *ret_error)
{
    json_error_t why;
    struct template_error error = {.path = "$"};
    _cleanup_(template_freep) struct template *t = calloc(1, sizeof(*t));
    struct check c = {.t = t, .error = &error};
    enum err e = t ? ERR_OK : ERR_NO_MEMORY;
    if (e)
        return e;
    if (len > TEMPLATE_MAX_BYTES)
        e = check_fail(&c, NULL, "the document is longer than %d bytes", TEMPLATE_MAX_BYTES);
    if (!e) {
        t->document = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
        e = t->document ? check_document(&c)
                        : check_fail(&c, NULL, "line %d, column %d: %.150s", why.line, why.column,
                                     why.text);
    }
    if (e)
        *ret_error = error;
    else
        *ret_template = TAKE_PTR(t);
    return e;
}

void template_free(struct template *t)
{
    if (!t)
        return;
    json_decref(t->document);
    free(t);
}

bool template_name_valid(const char *name)
{
    static const char *const operations[] = {"cacerts",     "simpleenroll", "simplereenroll",
                                             "fullcmc",     "serverkeygen", "csrattrs",
                                             "renewal-info"};
    size_t len = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
    if (len == 0 || len > TEMPLATE_NAME_MAX_CHARS || name[len] != '\0')
        return false;
    for (size_t i = 0; i < ARRAY_LEN(operations); i++) {
        if (strcmp(operations[i], name) == 0)
            return false;
    }
    return true;
}

const struct template_settings *template_settings(const struct template *t)
{
    return &t->settings;
}

enum err template_params_add(struct template_params *p, const char *name, const char *value)
{
    if (!value)
        return ERR_OK;
    if (p->count == TEMPLATE_MAX_PARAMS)
        return ERR_INVALID;
    p->item[p->count++] = (struct template_param){name, value};
    return ERR_OK;
}

const char *override_mode_name(enum override_mode m)
{
    switch (m) {
    case OVERRIDE_DO_NOTHING:
        return "DO_NOTHING";
    case OVERRIDE_MERGE:
        return "MERGE";
    case OVERRIDE_REPLACE:
        return "REPLACE";
    case OVERRIDE_FAIL:
        return "FAIL";
    }
    return "DO_NOTHING";
}

const char *verify_mode_name(enum verify_mode m)
{
    switch (m) {
    case VERIFY_CALL:
        return "call";
    case VERIFY_BROKER:
        return "broker";
    case VERIFY_EXTERNAL:
        return "external";
    case VERIFY_NONE:
        return "none";
    }
    return "call";
}
