/*
 * Provisioning templates: the AWS IoT grammar plus the Muster section (docs/templates.md),
 * compiled and checked once, then evaluated for each device. A compiled template is immutable and
 * may be used by any number of threads; whoever compiled it frees it. What evaluation returns lives
 * in the caller's arena, except where it says that it borrows from the template.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "enroll/template_settings.h"
#include "model/fault.h"
#include "model/profile.h"

enum {
    TEMPLATE_MAX_BYTES = 16384, /* AWS: 10240 characters; the Muster section needs room */
    TEMPLATE_NAME_MAX_CHARS = 36,
    TEMPLATE_MAX_DEPTH = 16,
    TEMPLATE_MAX_PARAMS = 32,
    TEMPLATE_MAX_GROUPS = 10,   /* AWS: groups per thing */
    TEMPLATE_MAX_POLICIES = 10, /* AWS: policies per certificate */
    TEMPLATE_MAX_VALUE_BYTES = 4096,
    TEMPLATE_POLICY_MAX_BYTES = 2048, /* AWS: policy document without white space */
    THING_NAME_MAX_CHARS = 128,
};

struct template;

/* Where and why a document was refused. */
struct template_error {
    char path[256];    /* JSON path, e.g. "$.Resources.thing.Properties.ThingName" */
    char message[256]; /* one sentence */
};

/* Compiles a document. ERR_INVALID fills ret_error and leaves ret_template alone. */
enum err template_compile(const char *text, size_t len, struct template **ret_template,
                          struct template_error *ret_error) MUST_CHECK;
void template_free(struct template *t);
DEFINE_CLEANUP(struct template *, template_free);

/* 1..36 characters of A-Z a-z 0-9 _ - and not the name of an EST operation (RFC 7030 3.2.2). */
bool template_name_valid(const char *name);

const struct template_settings *template_settings(const struct template *t);

/* One named value. */
struct template_param {
    const char *name;
    const char *value;
};

/*
 * The values an evaluation may use. Names that the template does not declare are ignored,
 * but Muster::Serial, Muster::Product and AWS::IoT::Certificate::* need no declaration. Without a
 * value the Default is taken, without that the evaluation fails (template.parameter_missing).
 */
struct template_params {
    struct template_param item[TEMPLATE_MAX_PARAMS];
    size_t count;
};

/* Adds a value; the strings are borrowed. ERR_INVALID when the list is full. NULL is skipped. */
enum err template_params_add(struct template_params *p, const char *name,
                             const char *value) MUST_CHECK;

/* The certificate to issue: evaluates Muster.Subject (default: CN = Muster::Serial),
 * Muster.SubjectAltNames (default: URI urn:muster:<product>:<serial>) and the rest of the
 * profile. AWS::IoT::Certificate::Id is not known yet and may not be used there. */
enum err template_profile(const struct template *t, const struct template_params *params,
                          struct arena *arena, struct cert_profile *ret_profile,
                          struct fault *fault) MUST_CHECK;

/* Without subject and SAN, which a renewal copies. Borrowed from t. */
const struct cert_profile *template_renewal_profile(const struct template *t);

enum override_mode { OVERRIDE_DO_NOTHING, OVERRIDE_MERGE, OVERRIDE_REPLACE, OVERRIDE_FAIL };

/* "DO_NOTHING", "MERGE", "REPLACE", "FAIL". */
const char *override_mode_name(enum override_mode m);

struct template_policy {
    const char *name;
    const char *document; /* compact JSON, or NULL: the policy of that name exists already */
};

/* What to write into the registry. */
struct registration {
    const char *thing_name;    /* NULL: the template makes no thing */
    const char *thing_type;    /* NULL: none */
    const char *billing_group; /* NULL: none */
    const char *attributes;    /* a JSON object of strings, "{}" when none */
    enum override_mode attributes_override;
    enum override_mode type_override;
    enum override_mode groups_override;
    const char *groups[TEMPLATE_MAX_GROUPS];
    size_t group_count;
    bool certificate_inactive; /* Certificate Status INACTIVE */
    struct template_policy policies[TEMPLATE_MAX_POLICIES];
    size_t policy_count;
    const char *device_configuration; /* a flat JSON object of strings, "{}" when none */
};

/* Just-in-time provisioning by AWS's rule: every parameter that is declared must have a value.
 * template.parameter_missing. */
enum err template_declared(const struct template *t, const struct template_params *params,
                           struct arena *arena, struct fault *fault) MUST_CHECK;

/* Evaluates Resources and DeviceConfiguration. Call it after signing, with
 * AWS::IoT::Certificate::Id among the values. */
enum err template_registration(const struct template *t, const struct template_params *params,
                               struct arena *arena, struct registration *ret_registration,
                               struct fault *fault) MUST_CHECK;

/* The registration and profile as one JSON object, for `muster template render` and golden
 * tests: keys in a fixed order, two-space indent, a final newline. NULL when out of memory. */
char *template_render(const struct cert_profile *profile, const struct registration *r,
                      struct arena *arena);
