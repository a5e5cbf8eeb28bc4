#include "enroll/broker_question.h"

#include <jansson.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "enroll/grants.h"
#include "model/topic_rules.h"
#include "pki/cert.h"

/* Who asks. */
struct asker {
    struct arena *arena;
    const struct broker_question *q;
    const struct gate_entry *entry;
    struct bytes der;
    json_t *values; /* of the thing */
};

static bool is(const char *name, size_t len, const char *text)
{
    return strlen(text) == len && memcmp(name, text, len) == 0;
}

static struct bytes text_or_none(const char *text)
{
    return text ? bytes_text(text) : bytes_of(NULL, 0);
}

static struct bytes attribute(const struct asker *a, const char *name, size_t len)
{
    static const char prefix[] = "iot:Connection.Thing.Attributes[";
    size_t skip = sizeof(prefix) - 1;
    if (len <= skip + 1 || memcmp(name, prefix, skip) != 0 || name[len - 1] != ']')
        return bytes_of(NULL, 0);
    const char *key = arena_copy(a->arena, name + skip, len - skip - 1);
    const json_t *all = json_object_get(a->values, "attributes");
    return key ? text_or_none(json_string_value(json_object_get(all, key))) : bytes_of(NULL, 0);
}

static enum err describe(const struct asker *a, struct cert_info *ret_info)
{
    _cleanup_(cert_freep) X509 *x = NULL;
    enum err e = cert_decode(a->der, &x);
    return e ? e : cert_describe(a->arena, x, ret_info);
}

/* Of the subject; what the plugin knows besides is not known here. */
static struct bytes subject(const struct asker *a, const char *name, size_t len)
{
    struct cert_info info;
    if (describe(a, &info))
        return bytes_of(NULL, 0);
    const struct {
        const char *name;
        const char *value;
    } parts[] = {{"iot:Certificate.Subject.CommonName", info.cn},
                 {"iot:Certificate.Subject.Country", info.country},
                 {"iot:Certificate.Subject.Organization", info.organization},
                 {"iot:Certificate.Subject.OrganizationalUnit", info.organizational_unit},
                 {"iot:Certificate.Subject.State", info.state_name},
                 {"iot:Certificate.Subject.DistinguishedNameQualifier", info.dn_qualifier},
                 {"iot:Certificate.Subject.SerialNumber", info.subject_serial_number}};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (is(name, len, parts[i].name))
            return text_or_none(parts[i].value);
    }
    return bytes_of(NULL, 0);
}

static struct bytes value_of(void *arg, const char *name, size_t len)
{
    const struct asker *a = arg;
    if (is(name, len, "iot:ClientId"))
        return text_or_none(a->q->client_id);
    if (is(name, len, "iot:Connection.Thing.ThingName"))
        return bytes_text(a->entry->thing);
    if (is(name, len, "iot:Connection.Thing.IsAttached"))
        return bytes_text(a->entry->thing[0] ? "true" : "false");
    if (is(name, len, "iot:Connection.Thing.ThingTypeName"))
        return text_or_none(json_string_value(json_object_get(a->values, "type")));
    struct bytes found = attribute(a, name, len);
    return found.len > 0 ? found : subject(a, name, len);
}

/* Every policy is looked at: one that denies decides. */
static bool policies_allow(struct asker *a, const struct grant_forms *forms, size_t attached,
                           enum policy_action action, const char *resource)
{
    const struct policy_vars vars = {value_of, a};
    bool allowed = false;
    if (forms->count != attached)
        return false; /* one does not compile */
    for (size_t i = 0; i < forms->count; i++) {
        enum policy_verdict v = policy_decide(forms->rows[i].form, action, resource, &vars);
        if (v == POLICY_DENIED)
            return false;
        allowed |= v == POLICY_ALLOWED;
    }
    return allowed;
}

static size_t attached_count(const char *numbers)
{
    size_t count = 1;
    for (const char *p = numbers; *p; p++)
        count += *p == ',';
    return count;
}

/* As the plugin's acl.c has it. */
static bool may(struct asker *a, const struct grant_forms *forms)
{
    const struct broker_question *q = a->q;
    const char *resource = q->action == POLICY_CONNECT ? q->client_id : q->resource;
    bool subscribes = q->action == POLICY_SUBSCRIBE;
    if (q->action != POLICY_CONNECT && !subscribes &&
        topic_is_reserved(resource, q->action == POLICY_PUBLISH))
        return false;
    if (!a->entry->policies)
        return q->action == POLICY_CONNECT || topic_is_of_thing(resource, a->entry->thing);
    if (subscribes && !topic_shared_filter(&resource))
        return false;
    size_t attached = attached_count(a->entry->policies);
    return policies_allow(a, forms, attached, q->action, resource) &&
           (!q->retain || policies_allow(a, forms, attached, POLICY_RETAIN, resource));
}

static bool client_id_good(const char *id)
{
    return id && id[0] && strlen(id) <= WIRE_MAX_CLIENT_CHARS && !strpbrk(id, "+#/") &&
           text_is_printable_utf8(id);
}

/* Whoever has that name in his certificate is not who has the thing of that name, unless it says
 * so. */
static bool is_named(const struct asker *a, const char *cn)
{
    struct cert_info info;
    return describe(a, &info) == ERR_OK && info.cn && strcmp(info.cn, cn) == 0;
}

enum err broker_question_ask(struct db *db, struct arena *arena, const struct broker_question *q,
                             struct broker_verdict *ret_verdict)
{
    struct gate_entry entry = {0};
    struct grant_forms forms = {0};
    struct asker a = {.arena = arena, .q = q, .entry = &entry};
    *ret_verdict = (struct broker_verdict){0};
    if (!client_id_good(q->client_id) || (q->fingerprint.len == 0 && !q->named))
        return ERR_OK;
    enum err e = gate_one_load(db, arena, q->fingerprint, q->named, q->product_id, &entry, &a.der);
    ret_verdict->unknown = e == ERR_NOT_FOUND;
    if (e || (q->fingerprint.len == 0 && !is_named(&a, q->named)))
        return e == ERR_NOT_FOUND ? ERR_OK : e;
    const struct gate_page page = {.entries = &entry, .count = 1};
    e = grant_forms_load(db, arena, &page, &forms);
    if (e)
        return e;
    const void *copy = arena_copy(arena, entry.fingerprint, SHA256_BYTES);
    a.values = entry.thing_values ? json_loads(entry.thing_values, 0, NULL) : NULL;
    *ret_verdict = (struct broker_verdict){.allowed = copy && may(&a, &forms),
                                           .unused = entry.state == WIRE_UNUSED,
                                           .fingerprint = bytes_of(copy, SHA256_BYTES)};
    json_decref(a.values);
    return ERR_OK;
}
