#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "enroll/template.h"
#include "suite.h"

#define THING(properties)                                                                          \
    "{\"Resources\":{\"t\":{\"Type\":\"AWS::IoT::Thing\",\"Properties\":{" properties "}}}}"
#define NAME(expression)                                                                           \
    "{\"Parameters\":{\"A\":{\"Type\":\"String\"},\"B\":{\"Type\":\"String\",\"Default\":\"b\"}}," \
    "\"Mappings\":{\"M\":{\"k\":{\"x\":\"mapped\",\"l\":[\"l0\",\"l1\"]}}},"                       \
    "\"Resources\":{\"t\":{\"Type\":\"AWS::IoT::Thing\",\"Properties\":{\"ThingName\":" expression \
    "}}}}"
#define POLICY(properties)                                                                         \
    "{\"Resources\":{\"p\":{\"Type\":\"AWS::IoT::Policy\",\"Properties\":{" properties "}}}}"
#define CERTIFICATE(properties, overrides)                                                         \
    "{\"Resources\":{\"c\":{\"Type\":\"AWS::IoT::Certificate\",\"Properties\":{" properties        \
    "},\"OverrideSettings\":{" overrides "}}}}"
#define MUSTER(section) "{\"Muster\":{" section "}}"

static struct template *compile(const char *text)
{
    struct template *t = NULL;
    struct template_error error = {0};
    enum err e = template_compile(text, strlen(text), &t, &error);
    ck_assert_msg(e == ERR_OK, "%s: %s", error.path, error.message);
    return t;
}

static void params_fill(struct template_params *p)
{
    ck_assert_int_eq(template_params_add(p, "A", "a-1-z"), ERR_OK);
    ck_assert_int_eq(template_params_add(p, "Muster::Serial", "SN-1"), ERR_OK);
    ck_assert_int_eq(template_params_add(p, "Muster::Product", "pump"), ERR_OK);
    ck_assert_int_eq(template_params_add(p, "AWS::IoT::Certificate::Id", "00ff"), ERR_OK);
}

START_TEST(expressions_and_their_values)
{
    static const char *const cases[][2] = {
        {NAME("\"plain\""), "plain"},
        {NAME("{\"Ref\":\"A\"}"), "a-1-z"},
        {NAME("{\"Ref\":\"B\"}"), "b"},
        {NAME("{\"Ref\":\"Muster::Serial\"}"), "SN-1"},
        {NAME("{\"Ref\":\"AWS::IoT::Certificate::Id\"}"), "00ff"},
        {NAME("{\"Fn::Join\":[\"_\",[\"x\",{\"Ref\":\"A\"},{\"Ref\":\"B\"}]]}"), "x_a-1-z_b"},
        {NAME("{\"Fn::Join\":[\"\",{\"Fn::Split\":[\"-\",{\"Ref\":\"A\"}]}]}"), "a1z"},
        {NAME("{\"Fn::Select\":[\"1\",{\"Fn::Split\":[\"-\",{\"Ref\":\"A\"}]}]}"), "1"},
        {NAME("{\"Fn::Select\":[2,[\"p\",\"q\",\"r\"]]}"), "r"},
        {NAME("{\"Fn::Sub\":\"${A}:${B}\"}"), "a-1-z:b"},
        {NAME("{\"Fn::Sub\":\"${Muster::Product}-${B}\"}"), "pump-b"},
        {NAME("{\"Fn::Sub\":[\"${B}\",{\"B\":\"own\"}]}"), "own"},
        {NAME("{\"Fn::Sub\":[\"${v}-${B}\",{\"v\":{\"Ref\":\"A\"}}]}"), "a-1-z-b"},
        {NAME("{\"Fn::FindInMap\":[\"M\",\"k\",\"x\"]}"), "mapped"},
        {NAME("{\"Fn::Select\":[\"1\",{\"Fn::FindInMap\":[\"M\",\"k\",\"l\"]}]}"), "l1"},
        {NAME("{\"Fn::Join\":[\"\",[\"a\",{\"Fn::Select\":[\"0\",{\"Fn::Split\":[\"1\",{\"Fn::"
              "Sub\":\"${A}\"}]}]}]]}"),
         "aa-"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        _cleanup_(template_freep) struct template *t = compile(cases[i][0]);
        struct template_params params = {.count = 0};
        struct registration r;
        struct fault fault = {0};
        struct arena a;
        arena_init(&a, 1 << 20);
        params_fill(&params);
        ck_assert_msg(template_registration(t, &params, &a, &r, &fault) == ERR_OK, "%s: %s",
                      cases[i][0], fault.detail);
        ck_assert_str_eq(r.thing_name, cases[i][1]);
        arena_done(&a);
    }
}
END_TEST

START_TEST(refused_documents_and_the_path_of_the_fault)
{
    static const char *const cases[][2] = {
        {"", "$"},
        {"[]", "$"},
        {"{\"Parameters\":{},\"Parameters\":{}}", "$"},
        {"{\"Unknown\":1}", "$.Unknown"},
        {"{\"Parameters\":{\"A\":{\"Type\":\"Number\"}}}", "$.Parameters.A.Type"},
        {"{\"Parameters\":{\"A\":{\"Type\":\"String\",\"Default\":1}}}", "$.Parameters.A.Default"},
        {"{\"Parameters\":{\"A\":{\"Type\":\"String\",\"AllowedValues\":[]}}}",
         "$.Parameters.A.AllowedValues"},
        {"{\"AWSTemplateFormatVersion\":\"2010-09-09\"}", "$.AWSTemplateFormatVersion"},
        {"{\"Description\":1}", "$.Description"},
        {"{\"Description\":\"a\\u0000b\"}", "$"},
        {"{\"Parameters\":[]}", "$.Parameters"},
        {"{\"Parameters\":{\"A\":{}}}", "$.Parameters.A.Type"},
        {"{\"Mappings\":{\"M\":{\"k\":\"v\"}}}", "$.Mappings.M.k"},
        {"{\"Mappings\":{\"M\":{\"k\":{\"x\":1}}}}", "$.Mappings.M.k.x"},
        {"{\"Resources\":{\"t\":{\"Type\":\"AWS::S3::Bucket\"}}}", "$.Resources.t.Type"},
        {"{\"Resources\":{\"t\":{\"Type\":\"AWS::IoT::Thing\"}}}", "$.Resources.t.Properties"},
        {THING(""), "$.Resources.t.Properties.ThingName"},
        {THING("\"ThingName\":1"), "$.Resources.t.Properties.ThingName"},
        {THING("\"ThingName\":\"a\",\"Colour\":\"b\""), "$.Resources.t.Properties.Colour"},
        {THING("\"ThingName\":\"a\",\"ThingGroups\":\"g\""),
         "$.Resources.t.Properties.ThingGroups"},
        {THING("\"ThingName\":\"a\",\"ThingGroups\":[\"g\",2]"),
         "$.Resources.t.Properties.ThingGroups[1]"},
        {THING("\"ThingName\":\"a\",\"AttributePayload\":{\"b c\":\"d\"}"),
         "$.Resources.t.Properties.AttributePayload.b c"},
        {NAME("{\"Ref\":\"Missing\"}"), "$.Resources.t.Properties.ThingName.Ref"},
        {NAME("{\"Fn::Sub\":\"${Missing}\"}"), "$.Resources.t.Properties.ThingName.Fn::Sub"},
        {NAME("{\"Fn::Sub\":\"${A\"}"), "$.Resources.t.Properties.ThingName.Fn::Sub"},
        {NAME("{\"Fn::Join\":[\"\",[{\"Ref\":\"Missing\"}]]}"),
         "$.Resources.t.Properties.ThingName.Fn::Join[1][0].Ref"},
        {NAME("{\"Fn::Join\":[1,[\"a\"]]}"), "$.Resources.t.Properties.ThingName.Fn::Join[0]"},
        {NAME("{\"Fn::Split\":[\"-\",\"a\"]}"), "$.Resources.t.Properties.ThingName.Fn::Split"},
        {NAME("{\"Fn::FindInMap\":[\"Nope\",\"k\",\"x\"]}"),
         "$.Resources.t.Properties.ThingName.Fn::FindInMap[0]"},
        {NAME("{\"Fn::Sub\":\"${Other::Name}\"}"), "$.Resources.t.Properties.ThingName.Fn::Sub"},
        {NAME("{\"Fn::Sub\":\"${}\"}"), "$.Resources.t.Properties.ThingName.Fn::Sub"},
        {NAME("{\"Fn::Sub\":[\"${v}\",[]]}"), "$.Resources.t.Properties.ThingName.Fn::Sub[1]"},
        {NAME("{\"Fn::Join\":[\"\",[]]}"), "$.Resources.t.Properties.ThingName.Fn::Join[1]"},
        {NAME("{\"Fn::Join\":[\"\",{\"Fn::Split\":[\"\",\"a\"]}]}"),
         "$.Resources.t.Properties.ThingName.Fn::Join[1].Fn::Split[0]"},
        {NAME("{\"Fn::Select\":[\"0\"]}"), "$.Resources.t.Properties.ThingName.Fn::Select"},
        {NAME("{\"Fn::If\":[]}"), "$.Resources.t.Properties.ThingName.Fn::If"},
        {NAME("{\"Ref\":\"A\",\"x\":1}"), "$.Resources.t.Properties.ThingName"},
        {"{\"Resources\":{\"p\":{\"Type\":\"AWS::IoT::Policy\",\"Properties\":{}}}}",
         "$.Resources.p.Properties"},
        {"{\"Resources\":{\"p\":{\"Type\":\"AWS::IoT::Policy\",\"Properties\":{\"PolicyDocument\":{"
         "\"a\":[{\"Ref\":\"Nope\"}]}}}}}",
         "$.Resources.p.Properties.PolicyDocument.a[0].Ref"},
        {POLICY("\"PolicyDocument\":7"), "$.Resources.p.Properties.PolicyDocument"},
        {POLICY("\"PolicyDocument\":\"[1]\""), "$.Resources.p.Properties.PolicyDocument"},
        {POLICY("\"PolicyDocument\":\"{ not JSON\""), "$.Resources.p.Properties.PolicyDocument"},
        {POLICY("\"PolicyDocument\":{\"a\":{\"Ref\":\"Muster::Serial\",\"b\":1}}"),
         "$.Resources.p.Properties.PolicyDocument.a.Ref"},
        {POLICY("\"PolicyDocument\":{}},\"OverrideSettings\":{"), "$.Resources.p.OverrideSettings"},
        {CERTIFICATE("\"Status\":\"PENDING_ACTIVATION\"", ""), "$.Resources.c.Properties.Status"},
        {CERTIFICATE("\"Colour\":\"red\"", ""), "$.Resources.c.Properties.Colour"},
        {CERTIFICATE("", "\"Status\":\"MERGE\""), "$.Resources.c.OverrideSettings.Status"},
        {CERTIFICATE("", "\"ThingName\":\"FAIL\""), "$.Resources.c.OverrideSettings.ThingName"},
        {THING("\"ThingName\":\"a\"},\"OverrideSettings\":{\"ThingTypeName\":\"MERGE\""),
         "$.Resources.t.OverrideSettings.ThingTypeName"},
        {THING("\"ThingName\":\"a\"},\"OverrideSettings\":{\"ThingGroups\":\"merge\""),
         "$.Resources.t.OverrideSettings.ThingGroups"},
        {THING("\"ThingName\":\"a\"},\"DependsOn\":{"), "$.Resources.t.DependsOn"},
        {"{\"Resources\":{\"a\":{\"Type\":\"AWS::IoT::Thing\",\"Properties\":{\"ThingName\":\"a\"}}"
         ","
         "\"b\":{\"Type\":\"AWS::IoT::Thing\",\"Properties\":{\"ThingName\":\"b\"}}}}",
         "$.Resources.b.Type"},
        {THING("\"ThingName\":\"a\",\"ThingGroups\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\","
               "\"8\",\"9\",\"10\",\"11\"]"),
         "$.Resources.t.Properties.ThingGroups"},
        {"{\"DeviceConfiguration\":{\"a\":{\"b\":\"c\"}}}", "$.DeviceConfiguration.a"},
        {MUSTER("\"Approval\":true"), "$.Muster.Approval"},
        {MUSTER("\"Credentials\":[]"), "$.Muster.Credentials"},
        {MUSTER("\"Credentials\":[\"token\",\"magic\"]"), "$.Muster.Credentials[1]"},
        {MUSTER("\"Keys\":[\"P-521\"]"), "$.Muster.Keys[0]"},
        {MUSTER("\"Validity\":\"1x\""), "$.Muster.Validity"},
        {MUSTER("\"Validity\":\"10d\",\"Jitter\":\"6d\""), "$.Muster.Jitter"},
        {MUSTER("\"Validity\":\"10d\",\"RenewBefore\":\"10d\""), "$.Muster.RenewBefore"},
        {MUSTER("\"CrlUrls\":[\"ftp://x\"]"), "$.Muster.CrlUrls[0]"},
        {MUSTER("\"OcspUrl\":\"http://a,URI:http://b\""), "$.Muster.OcspUrl"},
        {MUSTER("\"Subject\":{\"XX\":\"y\"}"), "$.Muster.Subject.XX"},
        {MUSTER("\"SubjectAltNames\":[{\"DNS\":\"a\",\"URI\":\"b:c\"}]"),
         "$.Muster.SubjectAltNames[0]"},
        {MUSTER("\"Subject\":\"CN=a\""), "$.Muster.Subject"},
        {MUSTER("\"Subject\":[{\"CN\":\"a\",\"O\":\"b\"}]"), "$.Muster.Subject[0]"},
        {MUSTER("\"Subject\":[{\"CN\":\"a\"},{\"O\":\"b\"},{\"CN\":\"c\"}]"),
         "$.Muster.Subject[2]"},
        {MUSTER("\"Subject\":{\"CN\":{\"Ref\":\"AWS::IoT::Certificate::Id\"}}"),
         "$.Muster.Subject.CN.Ref"},
        {MUSTER(
             "\"SubjectAltNames\":[{\"URI\":{\"Fn::Sub\":\"urn:${AWS::IoT::Certificate::Id}\"}}]"),
         "$.Muster.SubjectAltNames[0].URI.Fn::Sub"},
        {MUSTER("\"Serial\":\"Subject.O\""), "$.Muster.Serial"},
        {MUSTER("\"Validity\":\"59m\""), "$.Muster.Validity"},
        {MUSTER("\"Validity\":365"), "$.Muster.Validity"},
        {MUSTER("\"Backdate\":\"31d\""), "$.Muster.Backdate"},
        {MUSTER("\"VerifyWithin\":\"30s\""), "$.Muster.VerifyWithin"},
        {MUSTER("\"Replay\":\"31d\""), "$.Muster.Replay"},
        {MUSTER("\"ExtendedKeyUsage\":[\"emailProtection\"]"), "$.Muster.ExtendedKeyUsage[0]"},
        {MUSTER("\"CrlUrls\":[\"http://a\",\"http://b\",\"http://c\",\"http://d\",\"http://e\"]"),
         "$.Muster.CrlUrls"},
        {MUSTER("\"CaIssuersUrl\":\"http:///ca.der\""), "$.Muster.CaIssuersUrl"},
        {MUSTER("\"Issuer\":\"\""), "$.Muster.Issuer"},
        {MUSTER("\"Allowlist\":\"none\""), "$.Muster.Allowlist"},
        {MUSTER("\"Reprovision\":true"), "$.Muster.Reprovision"},
        {MUSTER("\"Quarantine\":{\"Failures\":101}"), "$.Muster.Quarantine.Failures"},
        {MUSTER("\"Quarantine\":{\"Failures\":0}"), "$.Muster.Quarantine.Failures"},
        {MUSTER("\"Verify\":\"maybe\""), "$.Muster.Verify"},
        {MUSTER("\"PreProvisioningHook\":\"http://h\""), "$.Muster.PreProvisioningHook"},
        {MUSTER("\"PreProvisioningHook\":{}"), "$.Muster.PreProvisioningHook.Url"},
        {MUSTER("\"PreProvisioningHook\":{\"Url\":\"file:///etc\"}"),
         "$.Muster.PreProvisioningHook.Url"},
        {MUSTER("\"PreProvisioningHook\":{\"Url\":\"https://u:p@h/\"}"),
         "$.Muster.PreProvisioningHook.Url"},
        {MUSTER("\"PreProvisioningHook\":{\"Url\":\"https://h\",\"Timeout\":\"11s\"}"),
         "$.Muster.PreProvisioningHook.Timeout"},
        {MUSTER("\"PreProvisioningHook\":{\"Url\":\"https://h\",\"Timeout\":\"0s\"}"),
         "$.Muster.PreProvisioningHook.Timeout"},
        {MUSTER("\"PreProvisioningHook\":{\"Url\":\"https://h\",\"Timeout\":5}"),
         "$.Muster.PreProvisioningHook.Timeout"},
        {MUSTER("\"PreProvisioningHook\":{\"Url\":\"https://h\",\"targetArn\":\"a\"}"),
         "$.Muster.PreProvisioningHook.targetArn"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct template *t = NULL;
        struct template_error error = {0};
        ck_assert_msg(template_compile(cases[i][0], strlen(cases[i][0]), &t, &error) == ERR_INVALID,
                      "%s", cases[i][0]);
        ck_assert_ptr_null(t);
        ck_assert_str_eq(error.path, cases[i][1]);
        ck_assert_int_gt(strlen(error.message), 0);
    }
}
END_TEST

START_TEST(nested_too_deep_and_too_long)
{
    char deep[2000] = "{\"DeviceConfiguration\":{\"a\":", text[TEMPLATE_MAX_BYTES + 2];
    struct template *t = NULL;
    struct template_error error = {0};
    for (int i = 0; i < 40; i++)
        strcat(deep, "[");
    for (int i = 0; i < 40; i++)
        strcat(deep, "]");
    strcat(deep, "}}");
    ck_assert_int_eq(template_compile(deep, strlen(deep), &t, &error), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(error.message, "deeper"));
    memset(text, ' ', sizeof(text));
    ck_assert_int_eq(template_compile(text, sizeof(text), &t, &error), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(error.message, "longer"));
}
END_TEST

START_TEST(refused_evaluations)
{
    static const struct {
        const char *document;
        enum fault_code code;
        const char *says;
    } cases[] = {
        {NAME("{\"Ref\":\"AWS::IoT::Certificate::Country\"}"), FAULT_TEMPLATE_PARAMETER,
         "AWS::IoT::Certificate::Country"},
        {NAME("{\"Fn::Select\":[\"9\",[\"a\"]]}"), FAULT_TEMPLATE_EVALUATION,
         "$.Resources.t.Properties.ThingName.Fn::Select[0]"},
        {NAME("{\"Fn::Select\":[\"x\",[\"a\"]]}"), FAULT_TEMPLATE_EVALUATION, "no index"},
        {NAME("{\"Fn::FindInMap\":[\"M\",{\"Ref\":\"A\"},\"x\"]}"), FAULT_TEMPLATE_EVALUATION,
         "no key"},
        {NAME("\"has space\""), FAULT_TEMPLATE_EVALUATION, "$.Resources.t.Properties.ThingName"},
        {NAME("\"\""), FAULT_TEMPLATE_EVALUATION, "ThingName"},
        {NAME("{\"Fn::Select\":[-1,[\"a\"]]}"), FAULT_TEMPLATE_EVALUATION, "no element -1"},
        {NAME("{\"Fn::FindInMap\":[\"M\",\"k\",\"l\"]}"), FAULT_TEMPLATE_EVALUATION,
         "gives a list"},
        {NAME("{\"Fn::Join\":[\"\",{\"Fn::FindInMap\":[\"M\",\"k\",\"x\"]}]}"),
         FAULT_TEMPLATE_EVALUATION, "gives a string"},
        {THING("\"ThingName\":\"a\",\"AttributePayload\":{\"k\":\"two words\"}"),
         FAULT_TEMPLATE_EVALUATION, "AttributePayload.k"},
        {CERTIFICATE("\"CertificateId\":{\"Fn::Select\":[\"1\",[\"a\"]]}", ""),
         FAULT_TEMPLATE_EVALUATION, "$.Resources.c.Properties.CertificateId"},
        {CERTIFICATE("\"Status\":{\"Ref\":\"Muster::Serial\"}", ""), FAULT_TEMPLATE_EVALUATION,
         "$.Resources.c.Properties.Status"},
        {"{\"Resources\":{\"p\":{\"Type\":\"AWS::IoT::Policy\",\"Properties\":{\"PolicyName\":"
         "\"n\"}},"
         "\"q\":{\"Type\":\"AWS::IoT::Policy\",\"Properties\":{\"PolicyName\":\"n\"}}}}",
         FAULT_TEMPLATE_EVALUATION, "$.Resources.q.Properties"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        _cleanup_(template_freep) struct template *t = compile(cases[i].document);
        struct template_params params = {.count = 0};
        struct registration r;
        struct fault fault = {0};
        struct arena a;
        arena_init(&a, 1 << 20);
        params_fill(&params);
        ck_assert_int_eq(template_registration(t, &params, &a, &r, &fault), ERR_DENIED);
        ck_assert_int_eq(fault.code, cases[i].code);
        ck_assert_msg(strstr(fault.detail, cases[i].says) != NULL, "%s", fault.detail);
        arena_done(&a);
    }
}
END_TEST

START_TEST(policy_variables_survive)
{
    _cleanup_(template_freep) struct template *t =
        compile("{\"Parameters\":{\"A\":{\"Type\":\"String\"}},\"Resources\":{\"p\":{\"Type\":"
                "\"AWS::IoT::Policy\",\"Properties\":{\"PolicyDocument\":"
                "{\"R\":[\"${iot:ClientId}\",{\"Fn::Sub\":\"${A}/${iot:Connection.Thing.ThingName}/"
                "${!x}\"}]}}}}}");
    struct template_params params = {.count = 0};
    struct registration r;
    struct fault fault = {0};
    struct arena a;
    arena_init(&a, 1 << 20);
    params_fill(&params);
    ck_assert_int_eq(template_registration(t, &params, &a, &r, &fault), ERR_OK);
    ck_assert_str_eq(
        r.policies[0].document,
        "{\"R\":[\"${iot:ClientId}\",\"a-1-z/${iot:Connection.Thing.ThingName}/${x}\"]}");
    ck_assert_int_eq(strspn(r.policies[0].name, "0123456789ABCDEF"), 40);
    arena_done(&a);
}
END_TEST

/* The fault of one document evaluated with one more value; FAULT_NONE when it is accepted. */
static enum fault_code fault_with(const char *document, const char *name, const char *value)
{
    _cleanup_(template_freep) struct template *t = compile(document);
    struct template_params params = {.count = 0};
    struct cert_profile profile;
    struct registration r;
    struct fault fault = {0};
    struct arena a;
    arena_init(&a, 1 << 20);
    ck_assert_int_eq(template_params_add(&params, name, value), ERR_OK);
    params_fill(&params);
    enum err e = template_profile(t, &params, &a, &profile, &fault);
    if (!e)
        e = template_registration(t, &params, &a, &r, &fault);
    arena_done(&a);
    return e ? fault.code : FAULT_NONE;
}

START_TEST(values_from_outside_are_bounded)
{
    static const char cn[] = "AWS::IoT::Certificate::CommonName";
    static const char text[] = POLICY("\"PolicyDocument\":{\"Fn::Sub\":\"{\\\"R\\\":\\\"${AWS::IoT:"
                                      ":Certificate::CommonName}\\\"}\"}");
    static const char object[] =
        POLICY("\"PolicyDocument\":{\"R\":{\"Ref\":\"AWS::IoT::Certificate::CommonName\"}}");
    char longest[TEMPLATE_MAX_VALUE_BYTES + 2] = {0};
    ck_assert_int_eq(fault_with(text, cn, "plain"), FAULT_NONE);
    ck_assert_int_eq(fault_with(text, cn, "x\",\"S\":\"y"), FAULT_TEMPLATE_EVALUATION);
    ck_assert_int_eq(fault_with(text, cn, "x\\"), FAULT_TEMPLATE_EVALUATION);
    ck_assert_int_eq(fault_with(text, cn, "x\n"), FAULT_TEMPLATE_EVALUATION);
    ck_assert_int_eq(fault_with(object, cn, "x\",\"S\":\"y"), FAULT_NONE);
    ck_assert_int_eq(fault_with(object, cn, "\xe9"), FAULT_TEMPLATE_EVALUATION);
    memset(longest, 'x', sizeof(longest) - 1);
    ck_assert_int_eq(
        fault_with(
            "{\"DeviceConfiguration\":{\"a\":{\"Ref\":\"AWS::IoT::Certificate::CommonName\"}}}", cn,
            longest),
        FAULT_TEMPLATE_EVALUATION);
    longest[TEMPLATE_MAX_VALUE_BYTES] = '\0';
    ck_assert_int_eq(
        fault_with(
            "{\"DeviceConfiguration\":{\"a\":{\"Ref\":\"AWS::IoT::Certificate::CommonName\"}}}", cn,
            longest),
        FAULT_NONE);
    ck_assert_int_eq(fault_with("{\"Parameters\":{\"P\":{\"Type\":\"String\"}},"
                                "\"DeviceConfiguration\":{\"a\":{\"Ref\":\"P\"}}}",
                                "Q", "v"),
                     FAULT_TEMPLATE_PARAMETER);
}
END_TEST

START_TEST(names_in_the_certificate)
{
    static const struct {
        const char *section;
        bool accepted;
    } cases[] = {
        {"\"Subject\":{\"CN\":\"a\",\"C\":\"CH\"}", true},
        {"\"Subject\":{}", true},
        {"\"Subject\":{\"C\":\"CHE\"}", false},
        {"\"Subject\":{\"C\":\"C1\"}", false},
        {"\"Subject\":{\"CN\":\"\"}", false},
        {"\"Subject\":{\"CN\":\"a\\nb\"}", false},
        {"\"Subject\":{\"CN\":"
         "\"0123456789012345678901234567890123456789012345678901234567890123\"}",
         true},
        {"\"Subject\":{\"CN\":"
         "\"01234567890123456789012345678901234567890123456789012345678901234\"}",
         false},
        {"\"SubjectAltNames\":[]", true},
        {"\"SubjectAltNames\":[{\"DNS\":\"a-1.example.com\"},{\"IP\":\"::1\"},{\"IP\":\"10.0.0.1\"}"
         ",{\"Email\":\"a@b\"}]",
         true},
        {"\"SubjectAltNames\":[{\"DNS\":\"a b\"}]", false},
        {"\"SubjectAltNames\":[{\"DNS\":\"a,DNS:b\"}]", false},
        {"\"SubjectAltNames\":[{\"IP\":\"10.0.0\"}]", false},
        {"\"SubjectAltNames\":[{\"Email\":\"ab\"}]", false},
        {"\"SubjectAltNames\":[{\"URI\":\"urn:a:b\"}]", true},
        {"\"SubjectAltNames\":[{\"URI\":\"1rn:a\"}]", false},
        {"\"SubjectAltNames\":[{\"URI\":\"no-scheme\"}]", false},
        {"\"SubjectAltNames\":[{\"URI\":\"urn:\"}]", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char document[512];
        snprintf(document, sizeof(document), "{\"Muster\":{%s}}", cases[i].section);
        enum fault_code want = cases[i].accepted ? FAULT_NONE : FAULT_TEMPLATE_EVALUATION;
        ck_assert_msg(fault_with(document, "X", "x") == want, "%s", cases[i].section);
    }
}
END_TEST

START_TEST(subject_and_names_by_default_and_in_order)
{
    static const char array[] = MUSTER("\"Subject\":[{\"O\":\"o\"},{\"OU\":\"1\"},{\"L\":\"2\"},{"
                                       "\"CN\":{\"Ref\":\"Muster::Serial\"}}]");
    _cleanup_(template_freep) struct template *plain = compile("{}");
    _cleanup_(template_freep) struct template *ordered = compile(array);
    struct template_params params = {.count = 0}, none = {.count = 0};
    struct cert_profile p;
    struct fault fault = {0};
    struct arena a;
    arena_init(&a, 1 << 20);
    ck_assert_int_eq(template_profile(plain, &none, &a, &p, &fault), ERR_DENIED);
    ck_assert_int_eq(fault.code, FAULT_TEMPLATE_PARAMETER);
    params_fill(&params);
    ck_assert_int_eq(template_profile(plain, &params, &a, &p, &fault), ERR_OK);
    ck_assert_uint_eq(p.subject_count, 1);
    ck_assert_str_eq(p.subject[0].type, "CN");
    ck_assert_str_eq(p.subject[0].value, "SN-1");
    ck_assert_uint_eq(p.san_count, 1);
    ck_assert_int_eq(p.san[0].kind, SAN_URI);
    ck_assert_str_eq(p.san[0].value, "urn:muster:pump:SN-1");
    ck_assert_int_eq(template_profile(ordered, &params, &a, &p, &fault), ERR_OK);
    ck_assert_uint_eq(p.subject_count, 4);
    ck_assert_str_eq(p.subject[0].type, "O");
    ck_assert_str_eq(p.subject[2].value, "2");
    ck_assert_str_eq(p.subject[3].value, "SN-1");
    arena_done(&a);
}
END_TEST

START_TEST(settings_by_default_and_as_written)
{
    _cleanup_(template_freep) struct template *plain = compile("{}");
    _cleanup_(template_freep) struct template *written =
        compile(MUSTER("\"Credentials\":[\"claim\"],\"Serial\":\"SAN.URI\",\"Keys\":[\"Ed25519\"],"
                       "\"Allowlist\":\"optional\",\"Reprovision\":\"replace\","
                       "\"Verify\":\"broker\",\"VerifyWithin\":\"2h\",\"Validity\":\"100d\","
                       "\"Jitter\":\"10d\",\"Grace\":\"0s\",\"Replay\":\"1d\","
                       "\"Issuer\":\"line\",\"Quarantine\":{\"Failures\":9},"
                       "\"PreProvisioningHook\":{\"Url\":\"https://hook\",\"Timeout\":\"7s\"}"));
    _cleanup_(template_freep) struct template *hooked =
        compile(MUSTER("\"PreProvisioningHook\":{\"Url\":\"http://127.0.0.1:8/a@b\"}"));
    const struct template_settings *s = template_settings(plain);
    ck_assert_uint_eq(s->credentials, CREDENTIAL_SET_TOKEN | CREDENTIAL_SET_FACTORY);
    ck_assert_int_eq(s->serial, SERIAL_FROM_CN);
    ck_assert_uint_eq(s->keys, KEY_P256 | KEY_P384);
    ck_assert(s->allowlist_required && s->reprovision == REPROVISION_REFUSE &&
              s->verify == VERIFY_CALL);
    ck_assert_int_eq(s->verify_within_s, 86400);
    ck_assert_int_eq(s->renew_before_s, 365 * 86400 / 3);
    ck_assert(s->grace_s == 3600 && s->replay_s == 3600 && s->quarantine_failures == 5 &&
              !s->issuer && !s->hook_url);
    s = template_settings(hooked);
    ck_assert_str_eq(s->hook_url, "http://127.0.0.1:8/a@b");
    ck_assert_uint_eq(s->hook_timeout_ms, 5000);
    s = template_settings(written);
    ck_assert_str_eq(s->hook_url, "https://hook");
    ck_assert_uint_eq(s->hook_timeout_ms, 7000);
    ck_assert(s->credentials == CREDENTIAL_SET_CLAIM && s->serial == SERIAL_FROM_URN &&
              s->keys == KEY_ED25519);
    ck_assert(!s->allowlist_required && s->reprovision == REPROVISION_REPLACE &&
              s->verify == VERIFY_BROKER);
    ck_assert(s->verify_within_s == 7200 && s->grace_s == 0 && s->replay_s == 86400 &&
              s->quarantine_failures == 9);
    ck_assert_int_eq(s->renew_before_s, 30 * 86400);
    ck_assert_str_eq(s->issuer, "line");
}
END_TEST

START_TEST(names_of_templates)
{
    ck_assert(template_name_valid("pump-3_A"));
    static const char *const bad[] = {
        "", "a b", "a/b", "simpleenroll", "cacerts", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ü"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(!template_name_valid(bad[i]), "%s", bad[i]);
}
END_TEST

static void file_get(const char *folder, const char *name, struct buf *b)
{
    char path[512];
    const char *root = getenv("MUSTER_SOURCE_ROOT");
    snprintf(path, sizeof(path), "%s/%s/%s.json", root ? root : ".", folder, name);
    buf_init(b, 1 << 20);
    ck_assert_msg(file_load(path, b) == ERR_OK, "%s", path);
}

/* With MUSTER_GOLDEN_WRITE set the files are written instead: read the difference before use. */
static void golden_compare(const char *name, const char *text)
{
    char path[512];
    const char *root = getenv("MUSTER_SOURCE_ROOT");
    snprintf(path, sizeof(path), "%s/tests/unit/golden/%s.json", root ? root : ".", name);
    const char *write = getenv("MUSTER_GOLDEN_WRITE");
    if (write && write[0]) {
        ck_assert_int_eq(file_store(path, bytes_text(text), 0644), ERR_OK);
        return;
    }
    struct buf golden;
    buf_init(&golden, 1 << 20);
    ck_assert_msg(file_load(path, &golden) == ERR_OK, "%s", path);
    ck_assert_str_eq(text, buf_text(&golden));
    buf_done(&golden);
}

START_TEST(shipped_templates_give_what_they_gave)
{
    static const char *const names[] = {"est-token", "est-factory", "claim",
                                        "jitp",      "bulk",        "quickstart"};
    static const struct template_param values[] = {
        {"SerialNumber", "SN-0001"},
        {"Muster::Serial", "SN-0001"},
        {"Muster::Product", "pump"},
        {"ThingName", "thing-1"},
        {"CSR", "-----BEGIN CERTIFICATE REQUEST-----"},
        {"AWS::IoT::Certificate::Id",
         "2f1c0a7e9b5d4c3b8a6f5e4d3c2b1a0f2f1c0a7e9b5d4c3b8a6f5e4d3c2b1a0f"},
        {"AWS::IoT::Certificate::CommonName", "bulb-7"},
        {"AWS::IoT::Certificate::SerialNumber", "4711"},
        {"AWS::IoT::Certificate::Organization", "Example Works AG"},
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct buf document;
        struct template_params params = {.count = 0};
        struct cert_profile profile;
        struct registration r;
        struct fault fault = {0};
        struct arena a;
        file_get("templates", names[i], &document);
        _cleanup_(template_freep) struct template *t = compile(buf_text(&document));
        for (size_t k = 0; k < ARRAY_LEN(values); k++)
            ck_assert_int_eq(template_params_add(&params, values[k].name, values[k].value), ERR_OK);
        arena_init(&a, 1 << 20);
        ck_assert_msg(template_profile(t, &params, &a, &profile, &fault) == ERR_OK, "%s: %s",
                      names[i], fault.detail);
        ck_assert_msg(template_registration(t, &params, &a, &r, &fault) == ERR_OK, "%s: %s",
                      names[i], fault.detail);
        golden_compare(names[i], template_render(&profile, &r, &a));
        arena_done(&a);
        buf_done(&document);
    }
}
END_TEST

SUITE("template", expressions_and_their_values, refused_documents_and_the_path_of_the_fault,
      nested_too_deep_and_too_long, refused_evaluations, policy_variables_survive,
      values_from_outside_are_bounded, names_in_the_certificate,
      subject_and_names_by_default_and_in_order, settings_by_default_and_as_written,
      names_of_templates, shipped_templates_give_what_they_gave)
