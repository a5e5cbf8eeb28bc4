/* What is written into the registry: thing, certificate, policies and configuration, evaluated. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/json_out.h"
#include "base/secret.h"
#include "base/text.h"
#include "enroll/template_internal.h"

enum {
    MAX_NAME_CHARS = 128,
    MAX_ATTRIBUTE_VALUE_CHARS = 800,
    MAX_OBJECT_BYTES = 32 * 1024,
    POLICY_HASH_BYTES = 20,
};

static const char name_chars[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:_-";
static const char value_chars[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.,@/:#=[]-";
static const char policy_chars[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+=,.@-";

static enum err no_memory(const struct eval *ev)
{
    return fault_set(ev->fault, FAULT_TEMPLATE_EVALUATION, "the values are too large");
}

/* A name of 1 to MAX_NAME_CHARS of the characters. */
static enum err eval_name_of(const struct eval *ev, json_t *node, const struct path *p,
                             const char *chars, const char **ret_name)
{
    const char *name = NULL;
    enum err e = eval_text(ev, node, p, &name);
    if (e)
        return e;
    size_t len = strspn(name, chars);
    if (len == 0 || len > MAX_NAME_CHARS || name[len] != '\0')
        return eval_fail(ev, p, "\"%.80s\" is not 1 to %d characters of the set allowed here", name,
                         MAX_NAME_CHARS);
    *ret_name = name;
    return ERR_OK;
}

static enum err eval_name_optional(const struct eval *ev, json_t *object, const char *key,
                                   const struct path *p, const char **ret_name)
{
    struct path at = {p, key, 0};
    json_t *node = json_object_get(object, key);
    return node ? eval_name_of(ev, node, &at, name_chars, ret_name) : ERR_OK;
}

/* An object of evaluated strings as JSON. chars NULL: any printable text. */
static enum err eval_object(const struct eval *ev, json_t *node, const struct path *p,
                            const char *chars, size_t max_chars, const char **ret_json)
{
    const char *key;
    json_t *value;
    _cleanup_(buf_donep) struct buf b = {0};
    buf_init(&b, MAX_OBJECT_BYTES);
    json_begin_object(&b);
    json_object_foreach(node, key, value)
    {
        struct path at = {p, key, 0};
        const char *text = NULL;
        enum err e = eval_text(ev, value, &at, &text);
        if (e)
            return e;
        if (strlen(text) > max_chars || (chars && text[strspn(text, chars)] != '\0') ||
            !text_is_printable_utf8(text))
            return eval_fail(
                ev, &at, "\"%.80s\" is too long or has characters that are not allowed here", text);
        json_text(&b, key, text);
    }
    json_end_object(&b);
    const char *copy = b.overflow ? NULL : arena_strdup(ev->arena, buf_text(&b));
    if (!copy)
        return no_memory(ev);
    *ret_json = copy;
    return ERR_OK;
}

static enum err eval_groups(const struct eval *ev, json_t *node, const struct path *p,
                            struct registration *r)
{
    size_t i;
    json_t *item;
    json_array_foreach(node, i, item)
    {
        struct path at = {p, NULL, i};
        const char *name = NULL;
        enum err e = eval_name_of(ev, item, &at, name_chars, &name);
        if (e)
            return e;
        bool seen = false;
        for (size_t k = 0; k < r->group_count; k++)
            seen = seen || strcmp(r->groups[k], name) == 0;
        if (!seen)
            r->groups[r->group_count++] = name;
    }
    return ERR_OK;
}

static enum err eval_thing(const struct eval *ev, const struct path *resources,
                           struct registration *r)
{
    json_t *object = json_object_get(ev->t->thing, "Properties");
    json_t *settings = json_object_get(ev->t->thing, "OverrideSettings");
    struct path resource = {resources, ev->t->thing_key, 0},
                properties = {&resource, "Properties", 0};
    struct path attributes = {&properties, "AttributePayload", 0},
                groups = {&properties, "ThingGroups", 0};
    enum err e = eval_name_optional(ev, object, "ThingName", &properties, &r->thing_name);
    if (!e)
        e = eval_name_optional(ev, object, "ThingTypeName", &properties, &r->thing_type);
    if (!e)
        e = eval_name_optional(ev, object, "BillingGroup", &properties, &r->billing_group);
    if (!e)
        e = eval_object(ev, json_object_get(object, "AttributePayload"), &attributes, value_chars,
                        MAX_ATTRIBUTE_VALUE_CHARS, &r->attributes);
    if (!e)
        e = eval_groups(ev, json_object_get(object, "ThingGroups"), &groups, r);
    if (e)
        return e;
    /* checked when it was compiled */
    (void)!template_override_parse(settings, "AttributePayload", &r->attributes_override);
    (void)!template_override_parse(settings, "ThingTypeName", &r->type_override);
    (void)!template_override_parse(settings, "ThingGroups", &r->groups_override);
    return ERR_OK;
}

static enum err eval_certificate(const struct eval *ev, const struct path *resources,
                                 struct registration *r)
{
    struct path resource = {resources, ev->t->certificate_key, 0},
                properties = {&resource, "Properties", 0}, at = {&properties, "Status", 0};
    struct path id_at = {&properties, "CertificateId", 0};
    json_t *object = json_object_get(ev->t->certificate, "Properties");
    json_t *id_node = json_object_get(object, "CertificateId");
    json_t *node = json_object_get(object, "Status");
    const char *status = NULL, *id = NULL;
    /* the certificate is the one just signed, whatever its id is called */
    enum err e = id_node ? eval_text(ev, id_node, &id_at, &id) : ERR_OK;
    if (!e && node)
        e = eval_text(ev, node, &at, &status);
    if (e || !status)
        return e;
    if (!template_status_parse(status, &r->certificate_inactive))
        return eval_fail(ev, &at, "\"%.32s\" is neither ACTIVE nor INACTIVE", status);
    return ERR_OK;
}

static enum err policy_build(const struct eval *ev, json_t *node, const struct path *p,
                             json_t **ret_built);

static enum err policy_build_members(const struct eval *ev, json_t *node, const struct path *p,
                                     json_t *built)
{
    const char *key;
    json_t *value;
    size_t i;
    enum err e = ERR_OK;
    json_object_foreach(node, key, value)
    {
        struct path at = {p, key, 0};
        json_t *made = NULL;
        e = policy_build(ev, value, &at, &made);
        if (!e && json_object_set_new(built, key, made) != 0)
            e = no_memory(ev);
        if (e)
            return e;
    }
    json_array_foreach(node, i, value)
    {
        struct path at = {p, NULL, i};
        json_t *made = NULL;
        e = policy_build(ev, value, &at, &made);
        if (!e && json_array_append_new(built, made) != 0)
            e = no_memory(ev);
        if (e)
            return e;
    }
    return e;
}

/* A copy of the document with its expressions replaced by their values. */
static enum err policy_build(const struct eval *ev, json_t *node, const struct path *p,
                             json_t **ret_built)
{
    const char *text = NULL;
    json_t *built = NULL;
    enum err e = ERR_OK;
    if (expr_is_function(node)) {
        e = eval_text(ev, node, p, &text);
        built = e ? NULL : json_string(text);
    } else if (json_is_object(node) || json_is_array(node)) {
        built = json_is_object(node) ? json_object() : json_array();
        e = built ? policy_build_members(ev, node, p, built) : ERR_OK;
    } else {
        built = json_deep_copy(node);
    }
    if (!e && !built)
        e = no_memory(ev);
    if (e)
        json_decref(built);
    else
        *ret_built = built;
    return e;
}

static enum err policy_document(const struct eval *ev, json_t *node, const struct path *p,
                                const char **ret_compact)
{
    json_t *built = NULL;
    const char *text = NULL;
    bool escaped = json_is_string(node) || expr_is_function(node);
    struct eval inside = *ev;
    inside.in_policy = true;
    inside.in_text = escaped;
    enum err e =
        escaped ? eval_text(&inside, node, p, &text) : policy_build(&inside, node, p, &built);
    if (e)
        return e;
    _cleanup_(freep) char *compact =
        escaped ? template_policy_compact(text) : json_dumps(built, JSON_COMPACT);
    json_decref(built);
    if (!compact)
        return eval_fail(ev, p, "is no JSON object");
    if (strlen(compact) > TEMPLATE_POLICY_MAX_BYTES)
        return eval_fail(ev, p, "is longer than %d bytes without white space",
                         TEMPLATE_POLICY_MAX_BYTES);
    const char *copy = arena_strdup(ev->arena, compact);
    if (!copy)
        return no_memory(ev);
    *ret_compact = copy;
    return ERR_OK;
}

/* As AWS names a policy that has no name: a hash of its document. */
static enum err policy_name_make(const struct eval *ev, const char *document, const char **ret_name)
{
    uint8_t digest[SHA256_BYTES];
    if (digest_sha256(bytes_text(document), digest))
        return no_memory(ev);
    char *name = text_hex(ev->arena, bytes_of(digest, POLICY_HASH_BYTES));
    for (char *c = name; c && *c; c++) {
        if (*c >= 'a')
            *c = (char)(*c - 'a' + 'A');
    }
    if (!name)
        return no_memory(ev);
    *ret_name = name;
    return ERR_OK;
}

/* Two policies of one name: the registry would keep the first and lose the second unseen. */
static bool policy_named(const struct registration *r, const char *name)
{
    for (size_t i = 0; i < r->policy_count; i++) {
        if (strcmp(r->policies[i].name, name) == 0)
            return true;
    }
    return false;
}

static enum err eval_policy(const struct eval *ev, size_t n, const struct path *resources,
                            struct registration *r)
{
    json_t *object = json_object_get(ev->t->policies[n].resource, "Properties");
    struct path resource = {resources, ev->t->policies[n].key, 0},
                properties = {&resource, "Properties", 0};
    struct path name_at = {&properties, "PolicyName", 0},
                document_at = {&properties, "PolicyDocument", 0};
    json_t *name = json_object_get(object, "PolicyName");
    json_t *document = json_object_get(object, "PolicyDocument");
    struct template_policy *policy = &r->policies[r->policy_count];
    enum err e = document ? policy_document(ev, document, &document_at, &policy->document) : ERR_OK;
    if (!e)
        e = name ? eval_name_of(ev, name, &name_at, policy_chars, &policy->name)
                 : policy_name_make(ev, policy->document, &policy->name);
    if (!e && policy_named(r, policy->name))
        e = eval_fail(ev, &properties, "another policy has the name \"%.80s\" already",
                      policy->name);
    if (!e)
        r->policy_count++;
    return e;
}

enum err template_registration(const struct template *t, const struct template_params *params,
                               struct arena *arena, struct registration *ret_registration,
                               struct fault *fault)
{
    const struct eval ev = {.t = t, .params = params, .arena = arena, .fault = fault};
    struct registration r = {.attributes = "{}", .device_configuration = "{}"};
    struct path resources = {NULL, "Resources", 0},
                configuration = {NULL, "DeviceConfiguration", 0};
    enum err e = t->thing ? eval_thing(&ev, &resources, &r) : ERR_OK;
    if (!e && t->certificate)
        e = eval_certificate(&ev, &resources, &r);
    for (size_t i = 0; i < t->policy_count && !e; i++)
        e = eval_policy(&ev, i, &resources, &r);
    if (!e && t->configuration)
        e = eval_object(&ev, t->configuration, &configuration, NULL, TEMPLATE_MAX_VALUE_BYTES,
                        &r.device_configuration);
    if (!e)
        *ret_registration = r;
    return e;
}

enum err template_declared(const struct template *t, const struct template_params *params,
                           struct arena *arena, struct fault *fault)
{
    const struct eval ev = {.t = t, .params = params, .arena = arena, .fault = fault};
    const struct path parameters = {NULL, "Parameters", 0};
    enum err e = ERR_OK;
    for (void *i = json_object_iter(t->parameters); i && !e;
         i = json_object_iter_next(t->parameters, i)) {
        const char *value;
        e = eval_parameter(&ev, json_object_iter_key(i), &parameters, &value);
    }
    return e;
}
