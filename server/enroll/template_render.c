/* What a template gives for a device, as one JSON object for people and golden tests. */
#include <stdlib.h>

#include "enroll/template_internal.h"

static int subject_add(json_t *out, const struct cert_profile *p)
{
    json_t *subject = json_object();
    int rc = json_object_set_new(out, "subject", subject);
    for (size_t i = 0; i < p->subject_count; i++)
        rc |= json_object_set_new(subject, p->subject[i].type, json_string(p->subject[i].value));
    return rc;
}

static int names_add(json_t *out, const struct cert_profile *p)
{
    static const char *const kinds[] = {
        [SAN_DNS] = "DNS", [SAN_URI] = "URI", [SAN_EMAIL] = "Email", [SAN_IP] = "IP"};
    json_t *names = json_array();
    int rc = json_object_set_new(out, "subject_alt_names", names);
    for (size_t i = 0; i < p->san_count; i++)
        rc |= json_array_append_new(names,
                                    json_pack("{s:s}", kinds[p->san[i].kind], p->san[i].value));
    return rc;
}

static int usage_add(json_t *out, const struct cert_profile *p)
{
    json_t *usage = json_array();
    int rc = json_object_set_new(out, "extended_key_usage", usage);
    if (p->eku & EKU_CLIENT_AUTH)
        rc |= json_array_append_new(usage, json_string("clientAuth"));
    if (p->eku & EKU_SERVER_AUTH)
        rc |= json_array_append_new(usage, json_string("serverAuth"));
    if (p->eku & EKU_CMC_RA)
        rc |= json_array_append_new(usage, json_string("cmcRA"));
    return rc;
}

static int addresses_add(json_t *out, const struct cert_profile *p)
{
    json_t *crls = json_array();
    int rc = json_object_set_new(out, "crl_urls", crls);
    for (size_t i = 0; i < p->crl_url_count; i++)
        rc |= json_array_append_new(crls, json_string(p->crl_urls[i]));
    rc |=
        json_object_set_new(out, "ocsp_url", p->ocsp_url ? json_string(p->ocsp_url) : json_null());
    rc |= json_object_set_new(out, "ca_issuers_url",
                              p->ca_issuers_url ? json_string(p->ca_issuers_url) : json_null());
    return rc;
}

static json_t *profile_json(const struct cert_profile *p)
{
    json_t *out = json_object();
    int rc = subject_add(out, p) | names_add(out, p);
    rc |= json_object_set_new(out, "validity_s", json_integer(p->validity_s));
    rc |= json_object_set_new(out, "jitter_s", json_integer(p->jitter_s));
    rc |= json_object_set_new(out, "backdate_s", json_integer(p->backdate_s));
    rc |= usage_add(out, p) | addresses_add(out, p);
    if (rc != 0) {
        json_decref(out);
        return NULL;
    }
    return out;
}

static int text_add(json_t *out, const char *key, const char *value)
{
    return json_object_set_new(out, key, value ? json_string(value) : json_null());
}

static int policies_add(json_t *out, const struct registration *r)
{
    json_t *policies = json_array();
    int rc = json_object_set_new(out, "policies", policies);
    for (size_t i = 0; i < r->policy_count; i++) {
        json_t *policy = json_object();
        rc |=
            json_array_append_new(policies, policy) | text_add(policy, "name", r->policies[i].name);
        json_t *document =
            r->policies[i].document ? json_loads(r->policies[i].document, 0, NULL) : json_null();
        rc |= json_object_set_new(policy, "document", document);
    }
    return rc;
}

static json_t *registration_json(const struct registration *r)
{
    json_t *out = json_object(), *groups = json_array();
    int rc = text_add(out, "thing_name", r->thing_name) |
             text_add(out, "thing_type", r->thing_type) |
             text_add(out, "billing_group", r->billing_group);
    rc |= json_object_set_new(out, "attributes", json_loads(r->attributes, 0, NULL));
    rc |= text_add(out, "attributes_override", override_mode_name(r->attributes_override));
    rc |= text_add(out, "thing_type_override", override_mode_name(r->type_override));
    rc |= json_object_set_new(out, "groups", groups);
    for (size_t i = 0; i < r->group_count; i++)
        rc |= json_array_append_new(groups, json_string(r->groups[i]));
    rc |= text_add(out, "groups_override", override_mode_name(r->groups_override));
    rc |= text_add(out, "certificate_status", r->certificate_inactive ? "INACTIVE" : "ACTIVE");
    rc |= policies_add(out, r);
    rc |= json_object_set_new(out, "device_configuration",
                              json_loads(r->device_configuration, 0, NULL));
    if (rc != 0) {
        json_decref(out);
        return NULL;
    }
    return out;
}

char *template_render(const struct cert_profile *profile, const struct registration *r,
                      struct arena *arena)
{
    json_t *out = json_pack("{s:o, s:o}", "certificate", profile_json(profile), "registration",
                            registration_json(r));
    char *text = out ? json_dumps(out, JSON_INDENT(2)) : NULL;
    char *copy = text ? arena_printf(arena, "%s\n", text) : NULL;
    free(text);
    json_decref(out);
    return copy;
}
