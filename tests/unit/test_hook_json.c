/* What a pre-provisioning hook is asked and what it may answer. */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "enroll/hook_internal.h"
#include "enroll/template.h"
#include "suite.h"

#define ALLOW "{\"allowProvisioning\":true}"

static struct hook_question question(void)
{
    static const struct enrollment_parameter parameters[] = {{"SerialNumber", "SN-1"},
                                                             {"Site", "\"z\303\274rich\""}};
    return (struct hook_question){.request_id = "rq-1",
                                  .product = "pump",
                                  .template_name = "line",
                                  .template_version = 3,
                                  .claim_name = "line-7",
                                  .claim_certificate_id = "c1a1",
                                  .parameters = parameters,
                                  .parameter_count = ARRAY_LEN(parameters)};
}

START_TEST(the_question_has_the_members_of_aws_and_ours)
{
    struct hook_question q = question();
    _cleanup_(freep) char *body = NULL;
    ck_assert_int_eq(hook_question_encode(&q, &body), ERR_OK);
    ck_assert_str_eq(
        body, "{\"payloadVersion\":\"2020-04-01\",\"claimCertificateId\":\"c1a1\","
              "\"templateArn\":\"arn:aws:iot:::provisioningtemplate/line\",\"clientId\":\"\","
              "\"parameters\":{\"SerialNumber\":\"SN-1\",\"Site\":\"\\\"z\303\274rich\\\"\"},"
              "\"requestId\":\"rq-1\",\"claimName\":\"line-7\",\"product\":\"pump\","
              "\"templateVersion\":3}");
}
END_TEST

START_TEST(the_question_names_the_certificate_where_it_is_known)
{
    struct hook_question q = question();
    _cleanup_(freep) char *body = NULL;
    q.certificate_id = "ab";
    q.certificate_pem = "-----BEGIN\n";
    q.client_id = "a/+#";
    ck_assert_int_eq(hook_question_encode(&q, &body), ERR_OK);
    ck_assert_ptr_nonnull(strstr(body, ",\"certificateId\":\"ab\",\"certificatePem\":"
                                       "\"-----BEGIN\\n\","));
    ck_assert_ptr_nonnull(strstr(body, ",\"clientId\":\"a/+#\","));
}
END_TEST

START_TEST(a_question_that_would_say_something_else_is_not_asked)
{
    struct enrollment_parameter twice[] = {{"A", "1"}, {"A", "2"}}, bytes[] = {{"A", "\xff"}};
    struct hook_question q = question();
    char *body = NULL;
    q.parameters = twice;
    ck_assert_int_eq(hook_question_encode(&q, &body), ERR_INVALID);
    q.parameters = bytes;
    q.parameter_count = 1;
    ck_assert_int_eq(hook_question_encode(&q, &body), ERR_INVALID);
    bytes[0].value = calloc(1, HOOK_MAX_QUESTION_BYTES + 1);
    memset((char *)(uintptr_t)bytes[0].value, 'x', HOOK_MAX_QUESTION_BYTES);
    ck_assert_int_eq(hook_question_encode(&q, &body), ERR_INVALID);
    ck_assert_ptr_null(body);
    free((char *)(uintptr_t)bytes[0].value);
}
END_TEST

static enum err decode(const char *text, struct arena *arena, struct hook_answer *answer,
                       struct fault *fault)
{
    arena_init(arena, 1 << 20);
    return hook_answer_decode(bytes_text(text), arena, answer, fault);
}

START_TEST(answers_that_allow)
{
    static const char *const texts[] = {
        ALLOW,
        " {\"allowProvisioning\" : true, \"parameterOverrides\": null, \"other\": [{\"a\": 1}]}\n",
        "{\"allowProvisioning\":true,\"parameterOverrides\":{},\"reason\":7}",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct arena arena;
        struct hook_answer answer = {.override_count = 9};
        struct fault fault = {0};
        ck_assert_msg(decode(texts[i], &arena, &answer, &fault) == ERR_OK, "%s", texts[i]);
        ck_assert_uint_eq(answer.override_count, 0);
        arena_done(&arena);
    }
}
END_TEST

#define WITH(overrides) "{\"allowProvisioning\":true,\"parameterOverrides\":" overrides "}"
#define FIVE(n) "\"" n "1\":\"\",\"" n "2\":\"\",\"" n "3\":\"\",\"" n "4\":\"\",\"" n "5\":\"\""
#define TWENTY FIVE("a") "," FIVE("b") "," FIVE("c") "," FIVE("d")

START_TEST(answers_that_do_not)
{
    static const struct {
        const char *text;
        enum fault_code code;
        const char *says;
    } cases[] = {
        {"", FAULT_HOOK_FAILED, "no JSON object"},
        {"true", FAULT_HOOK_FAILED, "no JSON object"},
        {"[" ALLOW "]", FAULT_HOOK_FAILED, "no JSON object"},
        {ALLOW ALLOW, FAULT_HOOK_FAILED, "no JSON object"},
        {"{\"allowProvisioning\":true", FAULT_HOOK_FAILED, "no JSON object"},
        {"{\"allowProvisioning\":false,\"allowProvisioning\":true}", FAULT_HOOK_FAILED,
         "no JSON object"},
        {"{\"allowProvisioning\":true,\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", FAULT_HOOK_FAILED,
         "no JSON object"},
        {"{\"a\":[\"]\",[\"]\",[\"]\",[\"]\",[\"]\",[\"]\",[\"]\",[\"]\",[\"]\",[\"]\",[\"]\","
         "[\"]\",[\"]\",[\"]\",[\"\\\"]\",[1]]]]]]]]]]]]]]]],\"allowProvisioning\":true}",
         FAULT_HOOK_FAILED, "no JSON object"},
        {"{\"allowProvisioning\":\"true\"}", FAULT_HOOK_FAILED, "neither true nor false"},
        {"{\"allowProvisioning\":1}", FAULT_HOOK_FAILED, "neither true nor false"},
        {"{\"allowProvisioning\":null}", FAULT_HOOK_FAILED, "neither true nor false"},
        {"{}", FAULT_HOOK_DENIED, "the answer has no allowProvisioning"},
        {"{\"AllowProvisioning\":true}", FAULT_HOOK_DENIED, "has no allowProvisioning"},
        {"{\"allowProvisioning\":false,\"parameterOverrides\":3}", FAULT_HOOK_DENIED,
         "allowProvisioning is false"},
        {"{\"allowProvisioning\":false,\"reason\":\"sold\\u0007\\u007fout \303\251\"}",
         FAULT_HOOK_DENIED, "allowProvisioning is false: sold  out \303\251"},
        {WITH("[]"), FAULT_HOOK_FAILED, "no object"},
        {WITH("{\"a\":1}"), FAULT_HOOK_FAILED, "no string"},
        {WITH("{\"a\":null}"), FAULT_HOOK_FAILED, "no string"},
        {WITH("{\"\":\"b\"}"), FAULT_HOOK_FAILED, "empty or too long"},
        {WITH("{\"a\\u0000b\":\"b\"}"), FAULT_HOOK_FAILED, "no JSON object"},
        {WITH("{\"a\":\"\xff\"}"), FAULT_HOOK_FAILED, "no JSON object"},
        {WITH("{" TWENTY ",\"e\":\"\"}"), FAULT_HOOK_FAILED, "too many"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena arena;
        struct hook_answer answer = {.override_count = 9};
        struct fault fault = {0};
        ck_assert_msg(decode(cases[i].text, &arena, &answer, &fault) == ERR_DENIED, "%s",
                      cases[i].text);
        ck_assert_msg(fault.code == cases[i].code && strstr(fault.detail, cases[i].says), "%s: %s",
                      cases[i].text, fault.detail);
        ck_assert_uint_eq(answer.override_count, 9);
        arena_done(&arena);
    }
}
END_TEST

/* The longest name and value are taken, one byte more is not. */
START_TEST(overrides_have_their_bounds)
{
    static char text[2 * TEMPLATE_MAX_VALUE_BYTES];
    static const struct {
        int name;
        int value;
        enum err result;
    } cases[] = {{HOOK_MAX_NAME_BYTES, TEMPLATE_MAX_VALUE_BYTES, ERR_OK},
                 {HOOK_MAX_NAME_BYTES + 1, 1, ERR_DENIED},
                 {1, TEMPLATE_MAX_VALUE_BYTES + 1, ERR_DENIED}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena arena;
        struct hook_answer answer;
        struct fault fault = {0};
        snprintf(text, sizeof(text), WITH("{\"%0*d\":\"%0*d\"}"), cases[i].name, 1, cases[i].value,
                 2);
        ck_assert_int_eq(decode(text, &arena, &answer, &fault), cases[i].result);
        arena_done(&arena);
    }
    struct arena arena;
    struct hook_answer answer;
    struct fault fault = {0};
    ck_assert_int_eq(decode(WITH("{" TWENTY "}"), &arena, &answer, &fault), ERR_OK);
    ck_assert_uint_eq(answer.override_count, ENROLLMENT_MAX_PARAMETERS);
    arena_done(&arena);
}
END_TEST

START_TEST(a_long_reason_is_cut_between_characters)
{
    char text[1024] = "{\"allowProvisioning\":false,\"reason\":\"";
    struct arena arena;
    struct hook_answer answer;
    struct fault fault = {0};
    for (int i = 0; i < 200; i++)
        strcat(text, "\342\202\254");
    strcat(text, "\"}");
    ck_assert_int_eq(decode(text, &arena, &answer, &fault), ERR_DENIED);
    ck_assert(text_is_printable_utf8(fault.detail));
    ck_assert_uint_gt(strlen(fault.detail), 250);
    arena_done(&arena);
}
END_TEST

START_TEST(the_signature_covers_the_time_and_the_body)
{
    char signature[HOOK_SIGNATURE_BYTES];
    ck_assert_int_eq(
        hook_sign(bytes_text("0123456789abcdef"), 1700000000, bytes_text("{\"a\":1}"), signature),
        ERR_OK);
    ck_assert_str_eq(
        signature,
        "t=1700000000,v1=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23");
}
END_TEST

SUITE("hook_json", the_question_has_the_members_of_aws_and_ours,
      the_question_names_the_certificate_where_it_is_known,
      a_question_that_would_say_something_else_is_not_asked, answers_that_allow,
      answers_that_do_not, overrides_have_their_bounds, a_long_reason_is_cut_between_characters,
      the_signature_covers_the_time_and_the_body)
