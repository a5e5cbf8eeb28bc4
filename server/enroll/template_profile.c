/* The certificate to issue: subject, names and the rest of the profile, for one device. */
#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "enroll/template_internal.h"

enum { MAX_CN_CHARS = 64, MAX_RDN_CHARS = 128, MAX_SAN_CHARS = 255 };

static const struct {
    const char *name;
    enum san_kind kind;
} san_kinds[] = {{"DNS", SAN_DNS}, {"URI", SAN_URI}, {"Email", SAN_EMAIL}, {"IP", SAN_IP}};

static size_t utf8_chars(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* RFC 5280 appendix A.1: upper bounds of the attributes. */
static bool rdn_valid(const char *type, const char *value)
{
    size_t chars = utf8_chars(value);
    if (chars == 0 || !text_is_printable_utf8(value))
        return false;
    if (strcmp(type, "C") == 0)
        return strlen(value) == 2 &&
               value[strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")] == '\0';
    bool is_short = strcmp(type, "CN") == 0 || strcmp(type, "O") == 0 || strcmp(type, "OU") == 0 ||
                    strcmp(type, "serialNumber") == 0;
    return chars <= (is_short ? MAX_CN_CHARS : MAX_RDN_CHARS);
}

/* A scheme (RFC 3986 section 3.1) and something behind it. */
static bool uri_valid(const char *value)
{
    static const char alpha[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    size_t len = strspn(value, alpha);
    while (len > 0 && value[len] &&
           (strchr(alpha, value[len]) || strchr("0123456789+-.", value[len])))
        len++;
    return len > 0 && value[len] == ':' && value[len + 1] != '\0';
}

static bool san_valid(enum san_kind kind, const char *value)
{
    static const char host[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_*";
    uint8_t address[16];
    size_t len = strlen(value);
    if (len == 0 || len > MAX_SAN_CHARS)
        return false;
    for (const char *c = value; *c; c++) {
        if (*c <= ' ' || *c >= 0x7f)
            return false;
    }
    switch (kind) {
    case SAN_DNS:
        return value[strspn(value, host)] == '\0';
    case SAN_URI:
        return uri_valid(value);
    case SAN_EMAIL:
        return strchr(value, '@') != NULL;
    case SAN_IP:
        return inet_pton(AF_INET, value, address) == 1 || inet_pton(AF_INET6, value, address) == 1;
    }
    return false;
}

static enum err rdn_add(const struct eval *ev, const struct path *p, const char *type,
                        const char *value, struct cert_profile *profile)
{
    if (!rdn_valid(type, value))
        return eval_fail(ev, p, "\"%.80s\" is no value for %s", value, type);
    profile->subject[profile->subject_count++] = (struct rdn){type, value};
    return ERR_OK;
}

static enum err eval_rdns(const struct eval *ev, json_t *node, const struct path *p,
                          struct cert_profile *profile)
{
    const char *key;
    json_t *value;
    json_object_foreach(node, key, value)
    {
        struct path at = {p, key, 0};
        const char *text = NULL;
        enum err e = eval_text(ev, value, &at, &text);
        if (!e)
            e = rdn_add(ev, &at, key, text, profile);
        if (e)
            return e;
    }
    return ERR_OK;
}

static enum err eval_subject(const struct eval *ev, const struct path *p,
                             struct cert_profile *profile)
{
    size_t i;
    json_t *item;
    if (json_is_object(ev->t->subject))
        return eval_rdns(ev, ev->t->subject, p, profile);
    json_array_foreach(ev->t->subject, i, item)
    {
        struct path at = {p, NULL, i};
        enum err e = eval_rdns(ev, item, &at, profile);
        if (e)
            return e;
    }
    return ERR_OK;
}

static enum err eval_names(const struct eval *ev, const struct path *p,
                           struct cert_profile *profile)
{
    size_t i;
    json_t *item;
    json_array_foreach(ev->t->names, i, item)
    {
        void *it = json_object_iter(item);
        const char *key = json_object_iter_key(it);
        struct path element = {p, NULL, i}, at = {&element, key, 0};
        const char *text = NULL;
        enum san_kind kind = SAN_DNS;
        enum err e = eval_text(ev, json_object_iter_value(it), &at, &text);
        for (size_t k = 0; k < ARRAY_LEN(san_kinds); k++) {
            if (strcmp(san_kinds[k].name, key) == 0)
                kind = san_kinds[k].kind;
        }
        if (e)
            return e;
        if (!san_valid(kind, text))
            return eval_fail(ev, &at, "\"%.80s\" is no %s name", text, key);
        profile->san[profile->san_count++] = (struct san){kind, text};
    }
    return ERR_OK;
}

static enum err default_subject(const struct eval *ev, const struct path *p,
                                struct cert_profile *profile)
{
    const char *serial = NULL;
    enum err e = eval_parameter(ev, "Muster::Serial", p, &serial);
    return e ? e : rdn_add(ev, p, "CN", serial, profile);
}

/* The name by which a certificate alone can rebuild its registry row. */
static enum err default_names(const struct eval *ev, const struct path *p,
                              struct cert_profile *profile)
{
    const char *product = NULL, *serial = NULL;
    enum err e = eval_parameter(ev, "Muster::Product", p, &product);
    if (!e)
        e = eval_parameter(ev, "Muster::Serial", p, &serial);
    if (e)
        return e;
    const char *urn = arena_printf(ev->arena, "urn:muster:%s:%s", product, serial);
    if (!urn)
        return fault_set(ev->fault, FAULT_TEMPLATE_EVALUATION, "the values are too large");
    if (!san_valid(SAN_URI, urn))
        return eval_fail(ev, p, "\"%.80s\" is no URI name", urn);
    profile->san[profile->san_count++] = (struct san){SAN_URI, urn};
    return ERR_OK;
}

enum err template_profile(const struct template *t, const struct template_params *params,
                          struct arena *arena, struct cert_profile *ret_profile,
                          struct fault *fault)
{
    const struct eval ev = {.t = t, .params = params, .arena = arena, .fault = fault};
    struct cert_profile profile = t->profile;
    struct path muster = {NULL, "Muster", 0}, subject = {&muster, "Subject", 0},
                names = {&muster, "SubjectAltNames", 0};
    enum err e = t->subject ? eval_subject(&ev, &subject, &profile)
                            : default_subject(&ev, &subject, &profile);
    if (!e)
        e = t->names ? eval_names(&ev, &names, &profile) : default_names(&ev, &names, &profile);
    if (!e)
        *ret_profile = profile;
    return e;
}

const struct cert_profile *template_renewal_profile(const struct template *t)
{
    return &t->profile;
}
