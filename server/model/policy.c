#include "model/policy.h"

#include <stdint.h>
#include <string.h>

enum { MAX_EXPANDED_BYTES = 2048, FIRST_PRINTABLE = 0x20 };

/* A place in a compiled form; nothing is read past its end. */
struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool bad;
};

static unsigned byte_take(struct reader *r)
{
    if (r->at == r->end) {
        r->bad = true;
        return 0;
    }
    return *r->at++;
}

static struct bytes bytes_take(struct reader *r, size_t len)
{
    if ((size_t)(r->end - r->at) < len) {
        r->bad = true;
        r->at = r->end;
        return bytes_of(r->end, 0);
    }
    struct bytes b = bytes_of(r->at, len);
    r->at += len;
    return b;
}

static struct bytes pattern_take(struct reader *r)
{
    size_t high = byte_take(r), low = byte_take(r);
    return bytes_take(r, high << 8 | low);
}

static struct bytes name_take(struct reader *r)
{
    return bytes_take(r, byte_take(r));
}

struct statement {
    bool deny;
    unsigned actions;
    unsigned flags;
    unsigned resources;
    unsigned conditions;
};

static struct statement statement_take(struct reader *r)
{
    struct statement s = {.deny = byte_take(r) == 1};
    s.actions = byte_take(r);
    s.flags = byte_take(r);
    s.resources = byte_take(r);
    s.conditions = byte_take(r);
    return s;
}

static struct reader form_open(struct bytes compiled)
{
    return (struct reader){compiled.data + 1, compiled.data + compiled.len, false};
}

/* Checking and walking. */

struct walk {
    bool (*take)(void *arg, const char *name, size_t len);
    void *arg;
    bool stopped;
};

static void name_walk(struct reader *r, struct bytes name, struct walk *w)
{
    if (name.len == 0 || name.len > POLICY_MAX_NAME_CHARS)
        r->bad = true;
    if (!r->bad && !w->stopped && w->take)
        w->stopped = w->take(w->arg, (const char *)name.data, name.len);
}

static void pattern_walk(struct reader *r, struct walk *w)
{
    struct bytes p = pattern_take(r);
    struct reader in = {p.data, p.data + p.len, false};
    while (in.at < in.end) {
        unsigned c = byte_take(&in);
        if (c == POLICY_TOKEN_VARIABLE)
            name_walk(&in, name_take(&in), w);
        else if (c == 0 || (c > POLICY_TOKEN_VARIABLE && c < FIRST_PRINTABLE))
            in.bad = true;
    }
    r->bad |= in.bad;
}

static void statement_walk(struct reader *r, struct walk *w)
{
    struct statement s = statement_take(r);
    r->bad |= (s.actions & ~(unsigned)POLICY_ALL) != 0 || s.flags > POLICY_UNJUDGED;
    for (unsigned i = 0; i < s.resources && !r->bad; i++) {
        unsigned type = byte_take(r);
        r->bad |= type < POLICY_CLIENT || type > POLICY_ANYTHING;
        pattern_walk(r, w);
    }
    for (unsigned i = 0; i < s.conditions && !r->bad; i++) {
        unsigned op = byte_take(r);
        r->bad |= op < POLICY_EQUALS || op > POLICY_NOT_LIKE;
        name_walk(r, name_take(r), w);
        unsigned patterns = byte_take(r);
        for (unsigned n = 0; n < patterns && !r->bad; n++)
            pattern_walk(r, w);
    }
}

static bool form_walk(struct bytes compiled, struct walk *w)
{
    if (compiled.len == 0 || compiled.len > POLICY_MAX_COMPILED_BYTES ||
        compiled.data[0] != POLICY_VERSION)
        return false;
    struct reader r = form_open(compiled);
    while (r.at < r.end && !r.bad)
        statement_walk(&r, w);
    return !r.bad;
}

bool policy_valid(struct bytes compiled)
{
    struct walk nothing = {0};
    return form_walk(compiled, &nothing);
}

bool policy_each_variable(struct bytes compiled,
                          bool (*take)(void *arg, const char *name, size_t len), void *arg)
{
    struct walk w = {take, arg, false};
    return form_walk(compiled, &w) && w.stopped;
}

/* Matching. */

bool policy_value_safe(struct bytes value)
{
    for (size_t i = 0; i < value.len; i++) {
        uint8_t c = value.data[i];
        if (c < FIRST_PRINTABLE || c == 0x7f || c == '+' || c == '#' || c == '/')
            return false;
    }
    return value.len > 0;
}

/* A pattern with its variables' values in their places. */
struct expanded {
    uint8_t text[MAX_EXPANDED_BYTES];
    size_t len;
    bool unknown; /* a variable had no safe value, or the text is too long */
};

static void expanded_add(struct expanded *x, const void *data, size_t len)
{
    if (len > sizeof(x->text) - x->len) {
        x->unknown = true;
        return;
    }
    memcpy(x->text + x->len, data, len);
    x->len += len;
}

static void pattern_expand(struct bytes pattern, const struct policy_vars *vars, bool open,
                           struct expanded *x)
{
    static const uint8_t any = POLICY_TOKEN_ANY;
    struct reader in = {pattern.data, pattern.data + pattern.len, false};
    x->len = 0;
    x->unknown = false;
    while (in.at < in.end && !x->unknown) {
        uint8_t c = (uint8_t)byte_take(&in);
        if (c != POLICY_TOKEN_VARIABLE) {
            expanded_add(x, &c, 1);
            continue;
        }
        struct bytes name = name_take(&in);
        struct bytes value = vars->value(vars->arg, (const char *)name.data, name.len);
        if (policy_value_safe(value))
            expanded_add(x, value.data, value.len);
        else if (open)
            expanded_add(x, &any, 1);
        else
            x->unknown = true;
    }
}

/* To the next character of UTF-8. */
static const uint8_t *character_end(const uint8_t *s)
{
    do
        s++;
    while ((*s & 0xc0) == 0x80);
    return s;
}

/* One point to come back to is enough: what stands before the last wildcard has matched, and the
 * shortest way to have matched it is the best. */
static bool glob(const uint8_t *p, const uint8_t *end, const char *text, bool wild)
{
    const uint8_t *s = (const uint8_t *)text, *back_p = NULL, *back_s = NULL;
    while (*s) {
        if (p < end && wild && *p == POLICY_TOKEN_ANY) {
            back_p = ++p;
            back_s = s;
        } else if (p < end && wild && *p == POLICY_TOKEN_ONE) {
            p++;
            s = character_end(s);
        } else if (p < end && *p == *s) {
            p++;
            s++;
        } else if (back_p) {
            p = back_p;
            s = ++back_s;
        } else {
            return false;
        }
    }
    while (p < end && wild && *p == POLICY_TOKEN_ANY)
        p++;
    return p == end;
}

static bool pattern_matches(struct bytes pattern, const char *text, const struct policy_vars *vars,
                            bool deny, bool wild)
{
    struct expanded x;
    pattern_expand(pattern, vars, deny && wild, &x);
    if (x.unknown)
        return deny;
    return glob(x.text, x.text + x.len, text, wild);
}

static enum policy_resource resource_of(enum policy_action action)
{
    switch (action) {
    case POLICY_CONNECT:
        return POLICY_CLIENT;
    case POLICY_SUBSCRIBE:
        return POLICY_FILTER;
    case POLICY_PUBLISH:
    case POLICY_RECEIVE:
    case POLICY_RETAIN:
    case POLICY_ALL:
        break;
    }
    return POLICY_TOPIC;
}

/* One question under way. */
struct question {
    enum policy_resource type;
    const char *resource;
    const struct policy_vars *vars;
    bool deny;
    bool asked; /* the statement is about the action */
};

static bool resources_match(struct reader *r, unsigned count, const struct question *q)
{
    bool found = false;
    for (unsigned i = 0; i < count; i++) {
        enum policy_resource type = (enum policy_resource)byte_take(r);
        struct bytes pattern = pattern_take(r);
        if (q->asked && !found && (type == q->type || type == POLICY_ANYTHING))
            found = pattern_matches(pattern, q->resource, q->vars, q->deny, true);
    }
    return found;
}

/* A variable without a value holds nothing that allows, and everything that denies. */
static bool condition_holds(struct reader *r, const struct question *q)
{
    enum policy_operator op = (enum policy_operator)byte_take(r);
    struct bytes name = name_take(r);
    unsigned count = byte_take(r);
    char text[MAX_EXPANDED_BYTES];
    struct bytes value = q->vars->value(q->vars->arg, (const char *)name.data, name.len);
    bool known = value.len > 0 && value.len < sizeof(text), matched = false;
    if (known)
        memcpy(text, value.data, value.len);
    text[known ? value.len : 0] = '\0';
    for (unsigned i = 0; i < count; i++) {
        struct bytes pattern = pattern_take(r);
        bool wild = op == POLICY_LIKE || op == POLICY_NOT_LIKE;
        if (q->asked && known && !matched)
            matched = pattern_matches(pattern, text, q->vars, q->deny, wild);
    }
    if (!known)
        return q->deny;
    return (op == POLICY_EQUALS || op == POLICY_LIKE) == matched;
}

/* Reads the statement to its end in any case. */
static bool statement_matches(struct reader *r, const struct statement *s, struct question *q)
{
    bool matches = resources_match(r, s->resources, q);
    for (unsigned i = 0; i < s->conditions; i++)
        matches &= condition_holds(r, q);
    return matches && (s->deny || !(s->flags & POLICY_UNJUDGED));
}

enum policy_verdict policy_decide(struct bytes compiled, enum policy_action action,
                                  const char *resource, const struct policy_vars *vars)
{
    enum policy_verdict verdict = POLICY_NO_MATCH;
    struct reader r = form_open(compiled);
    struct question q = {.type = resource_of(action), .resource = resource, .vars = vars};
    while (r.at < r.end) {
        struct statement s = statement_take(&r);
        q.deny = s.deny;
        q.asked = (s.actions & action) != 0;
        if (!statement_matches(&r, &s, &q))
            continue;
        if (s.deny)
            return POLICY_DENIED;
        verdict = POLICY_ALLOWED;
    }
    return verdict;
}
