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
        {NAME("{\"Fn::If\":[]}"), "$.Resources.t.Properties.ThingName.Fn::If"},
        {NAME("{\"Ref\":\"A\",\"x\":1}"), "$.Resources.t.Properties.ThingName"},
        {"{\"Resources\":{\"p\":{\"Type\":\"AWS::IoT::Policy\",\"Properties\":{}}}}",
         "$.Resources.p.Properties"},
        {"{\"Resources\":{\"p\":{\"Type\":\"AWS::IoT::Policy\",\"Properties\":{\"PolicyDocument\":{"
         "\"a\":[{\"Ref\":\"Nope\"}]}}}}}",
         "$.Resources.p.Properties.PolicyDocument.a[0].Ref"},
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
        {MUSTER("\"Quarantine\":{\"Failures\":0}"), "$.Muster.Quarantine.Failures"},
        {MUSTER("\"Verify\":\"maybe\""), "$.Muster.Verify"},
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
      names_of_templates, shipped_templates_give_what_they_gave)
