#include "enroll/policy_compile.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "model/policy.h"

enum { MAX_ITEMS = 255, MAX_PATTERN_BYTES = 1024, ARN_COLONS = 5 };

struct compile {
    struct buf *out;
    char *why;
    bool variables; /* of a Version that has them */
};

static enum err bad(struct compile *c, const char *what)
{
    snprintf(c->why, POLICY_WHY_BYTES, "%s", what);
    return ERR_INVALID;
}

/* A string, or an array of strings: the i-th, NULL behind the last. */
static const char *item(const json_t *node, size_t i)
{
    if (json_is_string(node))
        return i == 0 ? json_string_value(node) : NULL;
    return json_string_value(json_array_get(node, i));
}

static bool is_items(const json_t *node)
{
    if (json_is_string(node))
        return true;
    if (!json_is_array(node) || json_array_size(node) > MAX_ITEMS)
        return false;
    for (size_t i = 0; i < json_array_size(node); i++) {
        if (!json_is_string(json_array_get(node, i)))
            return false;
    }
    return true;
}

static size_t item_count(const json_t *node)
{
    return json_is_string(node) ? 1 : json_array_size(node);
}

/* Patterns. */

/* What ${...} at s stands for: a character that means nothing there, or a variable. How much of s
 * it takes; 0: it is none. */
static size_t variable_add(struct buf *b, const char *s)
{
    const char *end = strncmp(s, "${", 2) == 0 ? strchr(s, '}') : NULL;
    size_t len = end ? (size_t)(end - s) - 2 : 0;
    if (len == 0 || len > POLICY_MAX_NAME_CHARS)
        return 0;
    if (len == 1 && strchr("*?$", s[2])) {
        buf_add_char(b, s[2]);
    } else {
        buf_add_char(b, POLICY_TOKEN_VARIABLE);
        buf_add_char(b, (char)len);
        buf_add(b, s + 2, len);
    }
    return len + 3;
}

static enum err pattern_add(struct compile *c, const char *s, bool wild)
{
    _cleanup_(buf_donep) struct buf p = {0};
    buf_init(&p, MAX_PATTERN_BYTES);
    while (*s) {
        size_t used = c->variables ? variable_add(&p, s) : 0;
        if ((unsigned char)*s < ' ')
            return bad(c, "a control character in a pattern");
        if (used == 0 && wild && (*s == '*' || *s == '?'))
            buf_add_char(&p, *s == '*' ? POLICY_TOKEN_ANY : POLICY_TOKEN_ONE);
        else if (used == 0)
            buf_add_char(&p, *s);
        s += used > 0 ? used : 1;
    }
    if (p.overflow)
        return bad(c, "a pattern is too long");
    buf_add_char(c->out, (char)(p.len >> 8));
    buf_add_char(c->out, (char)(p.len & 255));
    buf_add(c->out, p.data, p.len);
    return ERR_OK;
}

/* Actions. */

/* An action's pattern against a name; letters in either case, as AWS has it. One point to come back
 * to is enough, as in model/policy.c: a pattern of many wildcards takes no longer than its length
 * times the name's. */
static bool action_matches(const char *p, const char *name)
{
    const char *back_p = NULL, *back_name = NULL;
    while (*name) {
        if (*p == '*') {
            back_p = ++p;
            back_name = name;
        } else if (*p == '?' || (*p != '\0' && strncasecmp(p, name, 1) == 0)) {
            p++;
            name++;
        } else if (back_p) {
            p = back_p;
            name = ++back_name;
        } else {
            return false;
        }
    }
    while (*p == '*')
        p++;
    return *p == '\0';
}

static unsigned actions_of(const json_t *node)
{
    static const struct {
        const char *name;
        unsigned bit;
    } names[] = {{"iot:Connect", POLICY_CONNECT},
                 {"iot:Publish", POLICY_PUBLISH},
                 {"iot:Subscribe", POLICY_SUBSCRIBE},
                 {"iot:Receive", POLICY_RECEIVE},
                 {"iot:RetainPublish", POLICY_RETAIN}};
    unsigned bits = 0;
    const char *text;
    for (size_t i = 0; (text = item(node, i)); i++) {
        for (size_t n = 0; n < ARRAY_LEN(names); n++) {
            if (action_matches(text, names[n].name))
                bits |= names[n].bit;
        }
    }
    return bits;
}

/* Resources. */

/* What follows the fifth colon of an ARN of AWS IoT; NULL: it is something else. */
static const char *arn_rest(const char *arn)
{
    if (strncmp(arn, "arn:", 4) != 0)
        return NULL;
    for (int i = 0; i < ARN_COLONS; i++) {
        arn = strchr(arn, ':');
        if (!arn)
            return NULL;
        arn++;
        if (i == 1 && strncmp(arn, "iot:", 4) != 0 && strncmp(arn, "*:", 2) != 0)
            return NULL;
    }
    return arn;
}

/* Its type, 0 where it can never be asked for here, and the pattern. */
static unsigned resource_parse(const char *text, const char **ret_pattern)
{
    static const struct {
        const char *prefix;
        enum policy_resource type;
    } types[] = {
        {"client/", POLICY_CLIENT}, {"topic/", POLICY_TOPIC}, {"topicfilter/", POLICY_FILTER}};
    const char *rest = strcmp(text, "*") == 0 ? text : arn_rest(text);
    *ret_pattern = "*";
    if (!rest)
        return 0;
    if (strcmp(rest, "*") == 0)
        return POLICY_ANYTHING;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        size_t len = strlen(types[i].prefix);
        if (strncmp(rest, types[i].prefix, len) == 0) {
            *ret_pattern = rest + len;
            return types[i].type;
        }
    }
    return 0;
}

/* A wildcard where the type stands: nobody can say what it is, so it allows nothing. */
static bool type_is_open(const char *text)
{
    const char *rest = arn_rest(text);
    return rest && strcspn(rest, "*?$") < strcspn(rest, "/");
}

static enum err resource_add(struct compile *c, unsigned type, const char *pattern)
{
    buf_add_char(c->out, (char)type);
    return pattern_add(c, pattern, true);
}

/* Writes the resources and says how many; of a denial those that are not understood are all. */
static enum err resources_add(struct compile *c, const json_t *node, bool deny, unsigned *ret_count)
{
    const char *text, *pattern;
    enum err e = ERR_OK;
    for (size_t i = 0; !e && (text = item(node, i)); i++) {
        unsigned type = resource_parse(text, &pattern);
        if (type == 0 && deny && type_is_open(text))
            type = POLICY_ANYTHING;
        if (type == 0)
            continue;
        e = resource_add(c, type, pattern);
        ++*ret_count;
    }
    return e;
}

/* Conditions. */

static unsigned operator_of(const char *name)
{
    static const struct {
        const char *name;
        enum policy_operator op;
    } names[] = {{"Bool", POLICY_EQUALS},
                 {"StringEquals", POLICY_EQUALS},
                 {"StringLike", POLICY_LIKE},
                 {"StringNotEquals", POLICY_NOT_EQUALS},
                 {"StringNotLike", POLICY_NOT_LIKE}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i].name, name) == 0)
            return names[i].op;
    }
    return 0;
}

static enum err condition_add(struct compile *c, unsigned op, const char *name,
                              const json_t *values)
{
    size_t len = strlen(name);
    const char *text;
    enum err e = ERR_OK;
    if (len == 0 || len > POLICY_MAX_NAME_CHARS)
        return bad(c, "the name of a condition's variable is too long");
    buf_add_char(c->out, (char)op);
    buf_add_char(c->out, (char)len);
    buf_add(c->out, name, len);
    buf_add_char(c->out, (char)item_count(values));
    for (size_t i = 0; !e && (text = item(values, i)); i++)
        e = pattern_add(c, text, op == POLICY_LIKE || op == POLICY_NOT_LIKE);
    return e;
}

static enum err conditions_add(struct compile *c, json_t *node, unsigned *ret_count,
                               bool *ret_unjudged)
{
    const char *operator_name, *name;
    json_t *operands, *values;
    enum err e = ERR_OK;
    json_object_foreach(node, operator_name, operands)
    {
        unsigned op = operator_of(operator_name);
        json_object_foreach(operands, name, values)
        {
            bool good = op != 0 && is_items(values) && *ret_count < MAX_ITEMS;
            *ret_unjudged |= !good;
            if (!good || e)
                continue;
            e = condition_add(c, op, name, values);
            ++*ret_count;
        }
    }
    return e;
}

/* Statements. */

static bool is_understood(json_t *statement)
{
    static const char *const names[] = {"Sid", "Effect", "Action", "Resource", "Condition"};
    const char *name;
    json_t *value;
    json_object_foreach(statement, name, value)
    {
        size_t i = 0;
        while (i < ARRAY_LEN(names) && strcmp(names[i], name) != 0)
            i++;
        if (i == ARRAY_LEN(names))
            return false;
    }
    return true;
}

/* What is left out of a denial is all. */
static enum err body_add(struct compile *c, json_t *s, bool deny, unsigned counts[2],
                         bool *unjudged)
{
    json_t *resource = json_object_get(s, "Resource"), *condition = json_object_get(s, "Condition");
    enum err e = ERR_OK;
    if (resource && !is_items(resource))
        return bad(c, "Resource must be a string or an array of strings");
    if (resource)
        e = resources_add(c, resource, deny, &counts[0]);
    else if (deny && *unjudged) {
        e = resource_add(c, POLICY_ANYTHING, "*");
        counts[0] = 1;
    }
    if (condition && !json_is_object(condition))
        return bad(c, "Condition must be an object");
    return e || !condition ? e : conditions_add(c, condition, &counts[1], unjudged);
}

static enum err statement_add(struct compile *c, json_t *s)
{
    const char *effect = json_string_value(json_object_get(s, "Effect"));
    json_t *action = json_object_get(s, "Action");
    bool deny = effect && strcmp(effect, "Deny") == 0, unjudged = !is_understood(s);
    size_t begin = c->out->len;
    unsigned counts[2] = {0, 0};
    if (!effect || (!deny && strcmp(effect, "Allow") != 0))
        return bad(c, "Effect must be Allow or Deny");
    if (action && !is_items(action))
        return bad(c, "Action must be a string or an array of strings");
    unsigned actions = action ? actions_of(action) : deny && unjudged ? POLICY_ALL : 0;
    buf_add(c->out, (const uint8_t[]){deny, (uint8_t)actions, 0, 0, 0}, 5);
    enum err e = body_add(c, s, deny, counts, &unjudged);
    if (!e && c->out->overflow)
        e = bad(c, "the policy is too long");
    if (e)
        return e;
    if (actions == 0 || counts[0] == 0) {
        c->out->len = begin; /* it says nothing here */
        return ERR_OK;
    }
    c->out->data[begin + 2] = unjudged ? POLICY_UNJUDGED : 0;
    c->out->data[begin + 3] = (uint8_t)counts[0];
    c->out->data[begin + 4] = (uint8_t)counts[1];
    return ERR_OK;
}

static enum err statements_add(struct compile *c, json_t *document)
{
    const char *version = json_string_value(json_object_get(document, "Version"));
    json_t *statements = json_object_get(document, "Statement");
    c->variables = !version || strcmp(version, "2008-10-17") != 0;
    if (json_is_object(statements))
        return statement_add(c, statements);
    if (!json_is_array(statements))
        return bad(c, "Statement must be an object or an array");
    enum err e = ERR_OK;
    for (size_t i = 0; i < json_array_size(statements) && !e; i++) {
        json_t *s = json_array_get(statements, i);
        e = json_is_object(s) ? statement_add(c, s) : bad(c, "a statement must be an object");
    }
    return e;
}

enum err policy_compile(const char *json, size_t len, struct buf *out,
                        char ret_why[POLICY_WHY_BYTES])
{
    struct compile c = {.out = out, .why = ret_why};
    size_t begin = out->len;
    json_t *document = json_loadb(json, len, JSON_REJECT_DUPLICATES, NULL);
    buf_add_char(out, POLICY_VERSION);
    enum err e =
        json_is_object(document) ? statements_add(&c, document) : bad(&c, "no JSON object");
    if (!e && (out->overflow || out->len - begin > POLICY_MAX_COMPILED_BYTES))
        e = bad(&c, "the policy is too long");
    json_decref(document);
    return e;
}
