#include "broker/grant.h"

#include <string.h>

#include <openssl/bn.h>
#include <openssl/x509.h>

#include "base/cleanup.h"
#include "broker/batch.h"

enum { MAX_VALUE_BYTES = 256 };

DEFINE_CLEANUP(X509 *, X509_free);

/* Who asks, and room for one value. */
struct asker {
    const struct mosquitto *client;
    const struct identity *who;
    struct bytes pairs;
    char value[MAX_VALUE_BYTES];
};

static const char *after(const char *name, size_t len, const char *prefix, size_t *ret_len)
{
    size_t n = strlen(prefix);
    if (len < n || memcmp(name, prefix, n) != 0)
        return NULL;
    *ret_len = len - n;
    return name + n;
}

static bool is(const char *name, size_t len, const char *text)
{
    return strlen(text) == len && memcmp(name, text, len) == 0;
}

/* Of the thing: its type has no name. */
static struct bytes pair_value(const struct asker *a, const char *name, size_t len)
{
    struct bytes rest = a->pairs, key, value;
    while (grants_pair(&rest, &key, &value)) {
        if (key.len == len && (len == 0 || memcmp(key.data, name, len) == 0))
            return value;
    }
    return bytes_of(NULL, 0);
}

static struct bytes thing_value(const struct asker *a, const char *name, size_t len)
{
    size_t rest = 0;
    if (is(name, len, "ThingName"))
        return bytes_text(a->who->thing);
    if (is(name, len, "IsAttached"))
        return bytes_text(a->who->thing[0] ? "true" : "false");
    if (is(name, len, "ThingTypeName"))
        return pair_value(a, "", 0);
    const char *key = after(name, len, "Attributes[", &rest);
    if (!key || rest < 2 || key[rest - 1] != ']')
        return bytes_of(NULL, 0);
    return pair_value(a, key, rest - 1);
}

static struct bytes name_value(struct asker *a, X509_NAME *x, const char *name, size_t len)
{
    static const struct {
        const char *name;
        int nid;
    } parts[] = {{"CommonName", NID_commonName},
                 {"Country", NID_countryName},
                 {"Organization", NID_organizationName},
                 {"OrganizationalUnit", NID_organizationalUnitName},
                 {"State", NID_stateOrProvinceName},
                 {"DistinguishedNameQualifier", NID_dnQualifier},
                 {"SerialNumber", NID_serialNumber},
                 {"Title", NID_title},
                 {"Surname", NID_surname},
                 {"GivenName", NID_givenName},
                 {"Pseudonym", NID_pseudonym}};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (!is(name, len, parts[i].name))
            continue;
        int n = X509_NAME_get_text_by_NID(x, parts[i].nid, a->value, sizeof(a->value));
        bool whole = n > 0 && n < MAX_VALUE_BYTES - 1 && memchr(a->value, '\0', (size_t)n) == NULL;
        return whole ? bytes_of(a->value, (size_t)n) : bytes_of(NULL, 0);
    }
    return bytes_of(NULL, 0);
}

static struct bytes number_value(struct asker *a, const X509 *x)
{
    BIGNUM *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(x), NULL);
    char *hex = n ? BN_bn2hex(n) : NULL;
    size_t len = hex ? strlen(hex) : 0;
    if (len < sizeof(a->value) && hex)
        memcpy(a->value, hex, len);
    else
        len = 0;
    OPENSSL_free(hex);
    BN_free(n);
    return bytes_of(a->value, len);
}

/* Read from the certificate when it is asked for; a session without connection shows none. */
static struct bytes certificate_value(struct asker *a, const char *name, size_t len)
{
    size_t rest = 0;
    _cleanup_(X509_freep) X509 *x = mosquitto_client_certificate(a->client);
    if (!x)
        return bytes_of(NULL, 0);
    if (is(name, len, "SerialNumber"))
        return number_value(a, x);
    const char *part = after(name, len, "Subject.", &rest);
    if (part)
        return name_value(a, X509_get_subject_name(x), part, rest);
    part = after(name, len, "Issuer.", &rest);
    return part ? name_value(a, X509_get_issuer_name(x), part, rest) : bytes_of(NULL, 0);
}

static struct bytes value_of(void *arg, const char *name, size_t len)
{
    struct asker *a = arg;
    size_t rest = 0;
    if (is(name, len, "iot:ClientId")) {
        const char *id = mosquitto_client_id(a->client);
        return bytes_text(id ? id : "");
    }
    const char *part = after(name, len, "iot:Connection.Thing.", &rest);
    if (part)
        return thing_value(a, part, rest);
    part = after(name, len, "iot:Certificate.", &rest);
    return part ? certificate_value(a, part, rest) : bytes_of(NULL, 0);
}

bool grant_allows(const struct plugin *p, const struct mosquitto *client,
                  const struct identity *who, enum policy_action action, const char *resource)
{
    struct grants g;
    bool allowed = false;
    if (!grants_decode(who->grants, &g))
        return false;
    struct asker a = {.client = client, .who = who, .pairs = g.pairs};
    const struct policy_vars vars = {value_of, &a};
    for (size_t i = 0; i < g.policies.len / 4; i++) {
        struct bytes form = policies_find(p->policies, grants_policy(&g, i));
        if (form.len == 0)
            return false;
        switch (policy_decide(form, action, resource, &vars)) {
        case POLICY_DENIED:
            return false;
        case POLICY_ALLOWED:
            allowed = true;
            break;
        case POLICY_NO_MATCH:
            break;
        }
    }
    return allowed;
}
