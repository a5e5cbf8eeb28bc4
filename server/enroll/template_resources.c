/* Resources and DeviceConfiguration, checked when a document is compiled. */
#include <string.h>

#include "enroll/template_internal.h"

static const char attribute_chars[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.,@/:#-";

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

enum err template_override_parse(json_t *settings, const char *name, enum override_mode *ret_mode)
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
        if (template_override_parse(node, names[i], &mode) || (type && mode == OVERRIDE_MERGE))
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
bool template_status_parse(const char *text, bool *ret_inactive)
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
    if (literal && !template_status_parse(literal, &inactive))
        return check_fail(c, &status, "must be ACTIVE or INACTIVE");
    if (template_override_parse(overrides, "Status", &mode) || mode == OVERRIDE_MERGE)
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
char *template_policy_compact(const char *text)
{
    json_t *document = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    char *compact = json_is_object(document) ? json_dumps(document, JSON_COMPACT) : NULL;
    json_decref(document);
    return compact;
}

static enum err check_policy_text(struct check *c, json_t *node, const struct path *p)
{
    _cleanup_(freep) char *compact = template_policy_compact(json_string_value(node));
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
