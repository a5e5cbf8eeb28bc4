/* Resources and DeviceConfiguration: thing, certificate, policies. */
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
static const char attribute_chars[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.,@/:#-";
static const char value_chars[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.,@/:#=[]-";
static const char policy_chars[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+=,.@-";

static enum err check_optional(struct check *c, json_t *object, const char *name,
                               const struct path *p)
{
    struct path at = {p, name, 0};
    json_t *node = json_object_get(object, name);
    return node ? check_text(c, node, &at) : ERR_OK;
}

static enum err check_attributes(struct check *c, json_t *node, const struct path *p)
{
    const char *key;
    json_t *value;
    if (!node)
        return ERR_OK;
    if (!json_is_object(node) || json_object_size(node) > TEMPLATE_MAX_ATTRIBUTES)
        return check_fail(c, p, "must be an object of at most %d members", TEMPLATE_MAX_ATTRIBUTES);
    json_object_foreach(node, key, value)
    {
        struct path at = {p, key, 0};
        if (key[0] == '\0' || key[strspn(key, attribute_chars)] != '\0')
            return check_fail(c, &at, "an attribute's name is made of A-Z a-z 0-9 _ . , @ / : # -");
        enum err e = check_text(c, value, &at);
        if (e)
            return e;
    }
    return ERR_OK;
}

static enum err check_groups(struct check *c, json_t *node, const struct path *p)
{
    size_t i;
    json_t *item;
    if (!node)
        return ERR_OK;
    if (!json_is_array(node) || json_array_size(node) > TEMPLATE_MAX_GROUPS)
        return check_fail(c, p, "must be an array of at most %d groups", TEMPLATE_MAX_GROUPS);
    json_array_foreach(node, i, item)
    {
        struct path at = {p, NULL, i};
        enum err e = check_text(c, item, &at);
        if (e)
            return e;
    }
    return ERR_OK;
}

static enum err override_parse(json_t *settings, const char *name, enum override_mode *ret_mode)
{
    static const enum override_mode modes[] = {OVERRIDE_DO_NOTHING, OVERRIDE_MERGE,
                                               OVERRIDE_REPLACE, OVERRIDE_FAIL};
    json_t *node = json_object_get(settings, name);
    const char *text = json_string_value(node);
    *ret_mode = OVERRIDE_DO_NOTHING;
    if (!node)
        return ERR_OK;
    for (size_t i = 0; text && i < ARRAY_LEN(modes); i++) {
        if (strcmp(override_mode_name(modes[i]), text) != 0)
            continue;
        *ret_mode = modes[i];
        return ERR_OK;
    }
    return ERR_INVALID;
}

static enum err check_overrides(struct check *c, json_t *node, const struct path *p)
{
    static const char *const names[] = {"AttributePayload", "ThingTypeName", "ThingGroups", NULL};
    enum err e = node ? check_members(c, node, p, names) : ERR_OK;
    for (size_t i = 0; names[i] && !e; i++) {
        struct path at = {p, names[i], 0};
        enum override_mode mode;
        bool type = strcmp(names[i], "ThingTypeName") == 0;
        if (override_parse(node, names[i], &mode) || (type && mode == OVERRIDE_MERGE))
            e = check_fail(c, &at, "must be %sREPLACE, DO_NOTHING or FAIL", type ? "" : "MERGE, ");
    }
    return e;
}

static enum err check_thing(struct check *c, json_t *resource, const struct path *p)
{
    static const char *const members[] = {"Type", "Properties", "OverrideSettings", NULL};
    static const char *const names[] = {"ThingName",   "AttributePayload", "ThingTypeName",
                                        "ThingGroups", "BillingGroup",     NULL};
    struct path properties = {p, "Properties", 0}, overrides = {p, "OverrideSettings", 0};
    struct path attributes = {&properties, "AttributePayload", 0},
                groups = {&properties, "ThingGroups", 0};
    struct path thing_name = {&properties, "ThingName", 0};
    json_t *object = json_object_get(resource, "Properties");
    enum err e = check_members(c, resource, p, members);
    if (!e)
        e = check_members(c, object, &properties, names);
    if (!e && !json_object_get(object, "ThingName"))
        e = check_fail(c, &thing_name, "is missing");
    if (!e)
        e = check_optional(c, object, "ThingName", &properties);
    if (!e)
        e = check_attributes(c, json_object_get(object, "AttributePayload"), &attributes);
    if (!e)
        e = check_optional(c, object, "ThingTypeName", &properties);
    if (!e)
        e = check_groups(c, json_object_get(object, "ThingGroups"), &groups);
    if (!e)
        e = check_optional(c, object, "BillingGroup", &properties);
    return e ? e : check_overrides(c, json_object_get(resource, "OverrideSettings"), &overrides);
}

/* Any case, as the documents of AWS have both. PENDING_ACTIVATION is where a certificate comes
 * from, never what a template may ask for. */
static bool status_parse(const char *text, bool *ret_inactive)
{
    bool inactive = strcasecmp(text, "INACTIVE") == 0;
    if (!inactive && strcasecmp(text, "ACTIVE") != 0)
        return false;
    *ret_inactive = inactive;
    return true;
}

static enum err check_status(struct check *c, json_t *properties, json_t *overrides,
                             const struct path *p)
{
    struct path props = {p, "Properties", 0}, settings = {p, "OverrideSettings", 0};
    struct path status = {&props, "Status", 0}, override = {&settings, "Status", 0};
    const char *literal = json_string_value(json_object_get(properties, "Status"));
    bool inactive;
    enum override_mode mode;
    if (literal && !status_parse(literal, &inactive))
        return check_fail(c, &status, "must be ACTIVE or INACTIVE");
    if (override_parse(overrides, "Status", &mode) || mode == OVERRIDE_MERGE)
        return check_fail(c, &override, "must be REPLACE, DO_NOTHING or FAIL");
    return ERR_OK;
}

static enum err check_certificate(struct check *c, json_t *resource, const struct path *p)
{
    static const char *const members[] = {"Type", "Properties", "OverrideSettings", NULL};
    static const char *const names[] = {"CertificateId",  "CertificateSigningRequest",
                                        "CertificatePem", "CACertificatePem",
                                        "Status",         NULL};
    static const char *const overrides[] = {"Status", NULL};
    struct path properties = {p, "Properties", 0}, settings = {p, "OverrideSettings", 0};
    json_t *object = json_object_get(resource, "Properties");
    json_t *override = json_object_get(resource, "OverrideSettings");
    enum err e = check_members(c, resource, p, members);
    if (!e)
        e = check_members(c, object, &properties, names);
    for (size_t i = 0; names[i] && !e; i++)
        e = check_optional(c, object, names[i], &properties);
    if (!e && override)
        e = check_members(c, override, &settings, overrides);
    return e ? e : check_status(c, object, override, p);
}

/* A policy document may hold expressions anywhere. */
static enum err check_policy_node(struct check *c, json_t *node, const struct path *p)
{
    const char *key;
    json_t *value;
    size_t i;
    if (expr_is_function(node))
        return check_text(c, node, p);
    json_object_foreach(node, key, value)
    {
        struct path at = {p, key, 0};
        if (strcmp(key, "Ref") == 0 || strncmp(key, "Fn::", 4) == 0)
            return check_fail(c, &at, "a function must be the only member of its object");
        if (check_policy_node(c, value, &at))
            return ERR_INVALID;
    }
    json_array_foreach(node, i, value)
    {
        struct path at = {p, NULL, i};
        if (check_policy_node(c, value, &at))
            return ERR_INVALID;
    }
    return ERR_OK;
}

/* A document without its white space, for the caller to free; NULL when it is no object. */
static char *policy_compact(const char *text)
{
    json_t *document = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    char *compact = json_is_object(document) ? json_dumps(document, JSON_COMPACT) : NULL;
    json_decref(document);
    return compact;
}

static enum err check_policy_text(struct check *c, json_t *node, const struct path *p)
{
    _cleanup_(freep) char *compact = policy_compact(json_string_value(node));
    if (json_string_length(node) > TEMPLATE_MAX_VALUE_BYTES)
        return check_fail(c, p, "longer than %d bytes", TEMPLATE_MAX_VALUE_BYTES);
    if (!compact)
        return check_fail(c, p, "is no JSON object");
    if (strlen(compact) > TEMPLATE_POLICY_MAX_BYTES)
        return check_fail(c, p, "is longer than %d bytes without white space",
                          TEMPLATE_POLICY_MAX_BYTES);
    return ERR_OK;
}

static enum err check_policy(struct check *c, json_t *resource, const struct path *p)
{
    static const char *const members[] = {"Type", "Properties", NULL};
    static const char *const names[] = {"PolicyName", "PolicyDocument", NULL};
    struct path properties = {p, "Properties", 0}, at = {&properties, "PolicyDocument", 0};
    json_t *object = json_object_get(resource, "Properties");
    enum err e = check_members(c, resource, p, members);
    if (!e)
        e = check_members(c, object, &properties, names);
    if (!e)
        e = check_optional(c, object, "PolicyName", &properties);
    json_t *document = json_object_get(object, "PolicyDocument");
    if (e || !document)
        return e || json_object_get(object, "PolicyName")
                   ? e
                   : check_fail(c, &properties, "needs PolicyName or PolicyDocument");
    if (!json_is_object(document) && !json_is_string(document))
        return check_fail(c, &at, "must be an object or a string");
    return json_is_string(document) ? check_policy_text(c, document, &at)
                                    : check_policy_node(c, document, &at);
}

static enum err check_resource(struct check *c, const char *key, json_t *resource,
                               const struct path *p)
{
    struct template *t = c->t;
    struct path at = {p, "Type", 0};
    const char *type = json_string_value(json_object_get(resource, "Type"));
    if (!type)
        return check_fail(c, &at,
                          "must be AWS::IoT::Thing, AWS::IoT::Certificate or AWS::IoT::Policy");
    if (strcmp(type, "AWS::IoT::Thing") == 0 && !t->thing) {
        t->thing = resource;
        t->thing_key = key;
        return check_thing(c, resource, p);
    }
    if (strcmp(type, "AWS::IoT::Certificate") == 0 && !t->certificate) {
        t->certificate = resource;
        t->certificate_key = key;
        return check_certificate(c, resource, p);
    }
    if (strcmp(type, "AWS::IoT::Policy") == 0 && t->policy_count < TEMPLATE_MAX_POLICIES) {
        t->policies[t->policy_count].key = key;
        t->policies[t->policy_count++].resource = resource;
        return check_policy(c, resource, p);
    }
    return check_fail(
        c, &at, "unknown, or more of this type than one thing, one certificate and %d policies",
        TEMPLATE_MAX_POLICIES);
}

enum err check_resources(struct check *c, json_t *resources, const struct path *p)
{
    const char *key;
    json_t *value;
    if (!json_is_object(resources))
        return check_fail(c, p, "must be an object");
    json_object_foreach(resources, key, value)
    {
        struct path at = {p, key, 0};
        enum err e = check_resource(c, key, value, &at);
        if (e)
            return e;
    }
    return ERR_OK;
}

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
    (void)!override_parse(settings, "AttributePayload", &r->attributes_override);
    (void)!override_parse(settings, "ThingTypeName", &r->type_override);
    (void)!override_parse(settings, "ThingGroups", &r->groups_override);
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
    if (!status_parse(status, &r->certificate_inactive))
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
    inside.in_text = true;
    enum err e = escaped ? eval_text(&inside, node, p, &text) : policy_build(ev, node, p, &built);
    if (e)
        return e;
    _cleanup_(freep) char *compact =
        escaped ? policy_compact(text) : json_dumps(built, JSON_COMPACT);
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
