/* What policies say: the language of AWS IoT, statement by statement. */
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "enroll/policy_compile.h"
#include "model/policy.h"
#include "suite.h"

#define ARN "arn:aws:iot:eu-central-1:123456789012:"
#define ALLOW(action, resource)                                                                    \
    "{\"Effect\":\"Allow\",\"Action\":\"iot:" action "\",\"Resource\":\"" ARN resource "\"}"
#define DENY(action, resource)                                                                     \
    "{\"Effect\":\"Deny\",\"Action\":\"iot:" action "\",\"Resource\":\"" ARN resource "\"}"
#define DOCUMENT(statements) "{\"Version\":\"2012-10-17\",\"Statement\":[" statements "]}"

static struct bytes value(void *arg, const char *name, size_t len)
{
    static const char *const known[][2] = {{"iot:ClientId", "c-7"},
                                           {"iot:Connection.Thing.ThingName", "pump-7"},
                                           {"iot:Connection.Thing.IsAttached", "true"},
                                           {"iot:Connection.Thing.Attributes[site]", "basel"},
                                           {"iot:Connection.Thing.Attributes[star]", "a*b"},
                                           {"iot:Connection.Thing.Attributes[slash]", "a/b"},
                                           {"iot:Connection.Thing.Attributes[plus]", "+"},
                                           {"iot:Connection.Thing.Attributes[hash]", "#"},
                                           {"iot:Connection.Thing.Attributes[tab]", "a\tb"},
                                           {"iot:Certificate.Subject.CommonName", "SN-7"}};
    (void)arg;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strlen(known[i][0]) == len && memcmp(known[i][0], name, len) == 0)
            return bytes_text(known[i][1]);
    }
    return bytes_of(NULL, 0);
}

static const struct policy_vars vars = {value, NULL};

static enum policy_verdict decide(const char *document, enum policy_action action,
                                  const char *resource)
{
    _cleanup_(buf_donep) struct buf b = {0};
    char why[POLICY_WHY_BYTES] = "";
    buf_init(&b, POLICY_MAX_COMPILED_BYTES);
    ck_assert_msg(policy_compile(document, strlen(document), &b, why) == ERR_OK, "%s: %s", document,
                  why);
    ck_assert(policy_valid(buf_bytes(&b)));
    return policy_decide(buf_bytes(&b), action, resource, &vars);
}

static const struct {
    const char *document;
    enum policy_action action;
    const char *resource;
    enum policy_verdict verdict;
} rows[] = {
    /* plain */
    {DOCUMENT(ALLOW("Publish", "topic/a/b")), POLICY_PUBLISH, "a/b", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/a/b")), POLICY_PUBLISH, "a/c", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Publish", "topic/a/b")), POLICY_RECEIVE, "a/b", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Publish", "topic/a/b")), POLICY_PUBLISH, "a/b/", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Publish", "topicfilter/a/b")), POLICY_PUBLISH, "a/b", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Connect", "client/c-7")), POLICY_CONNECT, "c-7", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Connect", "client/c-7")), POLICY_CONNECT, "c-8", POLICY_NO_MATCH},
    /* a denial goes before, wherever it stands */
    {DOCUMENT(ALLOW("Publish", "topic/*") "," DENY("Publish", "topic/a/b")), POLICY_PUBLISH, "a/b",
     POLICY_DENIED},
    {DOCUMENT(DENY("Publish", "topic/a/b") "," ALLOW("Publish", "topic/*")), POLICY_PUBLISH, "a/b",
     POLICY_DENIED},
    {DOCUMENT(DENY("Publish", "topic/a/b") "," ALLOW("Publish", "topic/*")), POLICY_PUBLISH, "a/c",
     POLICY_ALLOWED},
    /* wildcards pass level separators, MQTT's are plain characters */
    {DOCUMENT(ALLOW("Publish", "topic/a/*")), POLICY_PUBLISH, "a/b/c/d", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/a/*")), POLICY_PUBLISH, "a", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Publish", "topic/*/end")), POLICY_PUBLISH, "a/b/end", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/*/end")), POLICY_PUBLISH, "a/end/b", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Publish", "topic/a?c")), POLICY_PUBLISH, "abc", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/a?c")), POLICY_PUBLISH,
     "a\xc3\xa4"
     "c",
     POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/a?c")), POLICY_PUBLISH, "ac", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Subscribe", "topicfilter/a/+/c")), POLICY_SUBSCRIBE, "a/+/c", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Subscribe", "topicfilter/a/+/c")), POLICY_SUBSCRIBE, "a/b/c", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Subscribe", "topicfilter/a/#")), POLICY_SUBSCRIBE, "a/b", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Subscribe", "topicfilter/a/*")), POLICY_SUBSCRIBE, "a/#", POLICY_ALLOWED},
    /* variables */
    {DOCUMENT(ALLOW("Connect", "client/${iot:ClientId}")), POLICY_CONNECT, "c-7", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/things/${iot:Connection.Thing.ThingName}/*")), POLICY_PUBLISH,
     "things/pump-7/up", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/things/${iot:Connection.Thing.ThingName}/*")), POLICY_PUBLISH,
     "things/pump-8/up", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Publish", "topic/${iot:Connection.Thing.Attributes[site]}/x")), POLICY_PUBLISH,
     "basel/x", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/${iot:Certificate.Subject.CommonName}")), POLICY_PUBLISH,
     "SN-7", POLICY_ALLOWED},
    /* a value is text: its star is no wildcard */
    {DOCUMENT(ALLOW("Publish", "topic/${iot:Connection.Thing.Attributes[star]}")), POLICY_PUBLISH,
     "a*b", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/${iot:Connection.Thing.Attributes[star]}")), POLICY_PUBLISH,
     "axb", POLICY_NO_MATCH},
    /* unknown and unsafe values: never put in */
    {DOCUMENT(ALLOW("Publish", "topic/${iot:Nobody}/x")), POLICY_PUBLISH, "/x", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Publish", "topic/${iot:Nobody}/x")), POLICY_PUBLISH, "${iot:Nobody}/x",
     POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Publish", "topic/${iot:Connection.Thing.Attributes[slash]}")), POLICY_PUBLISH,
     "a/b", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Subscribe", "topicfilter/${iot:Connection.Thing.Attributes[plus]}/x")),
     POLICY_SUBSCRIBE, "+/x", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Subscribe", "topicfilter/${iot:Connection.Thing.Attributes[hash]}")),
     POLICY_SUBSCRIBE, "#", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Publish", "topic/${iot:Connection.Thing.Attributes[tab]}")), POLICY_PUBLISH,
     "a\tb", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Publish", "topic/*") "," DENY("Publish", "topic/${iot:Nobody}/x")),
     POLICY_PUBLISH, "any/x", POLICY_DENIED},
    {DOCUMENT(ALLOW("Publish", "topic/*") "," DENY("Publish", "topic/${iot:Nobody}/x")),
     POLICY_PUBLISH, "any/y", POLICY_ALLOWED},
    /* escapes */
    {DOCUMENT(ALLOW("Publish", "topic/a${*}b")), POLICY_PUBLISH, "a*b", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/a${*}b")), POLICY_PUBLISH, "axb", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("Publish", "topic/a${?}b${$}c")), POLICY_PUBLISH, "a?b$c", POLICY_ALLOWED},
    {"{\"Version\":\"2008-10-17\",\"Statement\":" ALLOW("Publish", "topic/${iot:ClientId}") "}",
     POLICY_PUBLISH, "c-7", POLICY_NO_MATCH},
    /* topics of AWS */
    {DOCUMENT(
         ALLOW("Publish", "topic/$aws/things/${iot:Connection.Thing.ThingName}/shadow/update")),
     POLICY_PUBLISH, "$aws/things/pump-7/shadow/update", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Subscribe", "topicfilter/$aws/things/*")), POLICY_SUBSCRIBE, "$aws/things/#",
     POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/*")), POLICY_PUBLISH, "$aws/x", POLICY_ALLOWED},
    /* actions */
    {DOCUMENT(ALLOW("*", "topic/a")), POLICY_PUBLISH, "a", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Pub*", "topic/a")), POLICY_PUBLISH, "a", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Pub*", "topic/a")), POLICY_RECEIVE, "a", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("publish", "topic/a")), POLICY_PUBLISH, "a", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("Publish", "topic/a")), POLICY_RETAIN, "a", POLICY_NO_MATCH},
    {DOCUMENT(ALLOW("RetainPublish", "topic/a")), POLICY_RETAIN, "a", POLICY_ALLOWED},
    {DOCUMENT(ALLOW("GetThingShadow", "topic/a")), POLICY_PUBLISH, "a", POLICY_NO_MATCH},
    /* everything, in its ways of being written */
    {"{\"Statement\":{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"*\"}}", POLICY_CONNECT,
     "x", POLICY_ALLOWED},
    {"{\"Statement\":[{\"Effect\":\"Allow\",\"Action\":[\"iot:*\"],\"Resource\":[\"arn:aws:iot:*:*:"
     "*\"]}]}",
     POLICY_SUBSCRIBE, "#", POLICY_ALLOWED},
    {DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"iot:*\",\"Resource\":\"arn:aws:s3:::bucket/*\"}"),
     POLICY_PUBLISH, "a", POLICY_NO_MATCH},
    {DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"iot:*\",\"Resource\":\"" ARN "thing/*\"}"),
     POLICY_PUBLISH, "a", POLICY_NO_MATCH},
    {DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"iot:*\",\"Resource\":\"" ARN "top*\"}"),
     POLICY_PUBLISH, "a", POLICY_NO_MATCH},
    {DOCUMENT("{\"Effect\":\"Deny\",\"Action\":\"iot:*\",\"Resource\":\"" ARN "top*\"}"),
     POLICY_PUBLISH, "a", POLICY_DENIED},
    /* conditions */
    {DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"iot:Connect\",\"Resource\":\"*\",\"Condition\":{"
              "\"Bool\":{\"iot:Connection.Thing.IsAttached\":[\"true\"]}}}"),
     POLICY_CONNECT, "x", POLICY_ALLOWED},
    {DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"iot:Connect\",\"Resource\":\"*\",\"Condition\":{"
              "\"Bool\":{\"iot:Connection.Thing.IsAttached\":\"false\"}}}"),
     POLICY_CONNECT, "x", POLICY_NO_MATCH},
    {DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"iot:Connect\",\"Resource\":\"*\",\"Condition\":{"
              "\"StringLike\":{\"iot:ClientId\":[\"x-*\",\"c-*\"]}}}"),
     POLICY_CONNECT, "c-7", POLICY_ALLOWED},
    {DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"iot:Connect\",\"Resource\":\"*\",\"Condition\":{"
              "\"StringEquals\":{\"iot:Nobody\":\"x\"}}}"),
     POLICY_CONNECT, "x", POLICY_NO_MATCH},
    {DOCUMENT("{\"Effect\":\"Deny\",\"Action\":\"iot:Connect\",\"Resource\":\"*\",\"Condition\":{"
              "\"StringEquals\":{\"iot:Nobody\":\"x\"}}}"),
     POLICY_CONNECT, "x", POLICY_DENIED},
    {DOCUMENT("{\"Effect\":\"Deny\",\"Action\":\"iot:Connect\",\"Resource\":\"*\",\"Condition\":{"
              "\"StringNotEquals\":{\"iot:ClientId\":\"c-7\"}}}"),
     POLICY_CONNECT, "c-7", POLICY_NO_MATCH},
    /* what is not understood never allows and always denies */
    {DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"iot:Connect\",\"Resource\":\"*\",\"Condition\":{"
              "\"DateLessThan\":{\"aws:CurrentTime\":\"2030-01-01T00:00:00Z\"}}}"),
     POLICY_CONNECT, "x", POLICY_NO_MATCH},
    {DOCUMENT("{\"Effect\":\"Deny\",\"Action\":\"iot:Connect\",\"Resource\":\"*\",\"Condition\":{"
              "\"IpAddress\":{\"aws:SourceIp\":\"10.0.0.0/8\"}}}"),
     POLICY_CONNECT, "x", POLICY_DENIED},
    {DOCUMENT("{\"Effect\":\"Allow\",\"NotAction\":\"iot:Connect\",\"Resource\":\"*\"}"),
     POLICY_PUBLISH, "x", POLICY_NO_MATCH},
    {DOCUMENT("{\"Effect\":\"Deny\",\"NotAction\":\"iot:Connect\",\"Resource\":\"*\"}"),
     POLICY_PUBLISH, "x", POLICY_DENIED},
    {DOCUMENT("{\"Effect\":\"Deny\",\"Action\":\"iot:Publish\",\"NotResource\":\"" ARN
              "topic/a\"}"),
     POLICY_PUBLISH, "a", POLICY_DENIED},
    {DOCUMENT(""), POLICY_PUBLISH, "x", POLICY_NO_MATCH},
};

START_TEST(the_language)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        ck_assert_msg(decide(rows[i].document, rows[i].action, rows[i].resource) == rows[i].verdict,
                      "row %zu: %s on %s", i, rows[i].document, rows[i].resource);
}
END_TEST

START_TEST(what_is_no_policy_is_refused_with_a_reason)
{
    static const char *const documents[] = {
        "",
        "[]",
        "{}",
        "{\"Statement\":1}",
        "{\"Statement\":[1]}",
        DOCUMENT("{\"Effect\":\"Perhaps\",\"Action\":\"*\",\"Resource\":\"*\"}"),
        DOCUMENT("{\"Effect\":\"Allow\",\"Action\":7,\"Resource\":\"*\"}"),
        DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":{}}"),
        DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"*\",\"Condition\":[]}"),
        DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"iot:*\",\"Resource\":\"" ARN
                 "topic/\\u0002\"}")};
    for (size_t i = 0; i < ARRAY_LEN(documents); i++) {
        _cleanup_(buf_donep) struct buf b = {0};
        char why[POLICY_WHY_BYTES] = "";
        buf_init(&b, POLICY_MAX_COMPILED_BYTES);
        ck_assert_msg(policy_compile(documents[i], strlen(documents[i]), &b, why) == ERR_INVALID,
                      "%s", documents[i]);
        ck_assert_str_ne(why, "");
    }
}
END_TEST

START_TEST(a_damaged_form_is_not_valid)
{
    static const char document[] =
        DOCUMENT(ALLOW("Publish", "topic/${iot:ClientId}/*") "," DENY("Connect", "client/x"));
    _cleanup_(buf_donep) struct buf b = {0};
    char why[POLICY_WHY_BYTES];
    buf_init(&b, POLICY_MAX_COMPILED_BYTES);
    ck_assert_int_eq(policy_compile(document, strlen(document), &b, why), ERR_OK);
    ck_assert(!policy_valid(bytes_of(NULL, 0)));
    for (size_t len = 0; len < b.len; len++) {
        struct bytes cut = bytes_of(b.data, len);
        if (policy_valid(cut)) /* at a statement's end only */
            (void)policy_decide(cut, POLICY_PUBLISH, "c-7/x", &vars);
    }
    b.data[0] = 9;
    ck_assert(!policy_valid(buf_bytes(&b)));
}
END_TEST

static bool is_client(void *arg, const char *name, size_t len)
{
    ++*(int *)arg;
    return len == 12 && memcmp(name, "iot:ClientId", len) == 0;
}

START_TEST(the_variables_of_a_policy)
{
    static const char document[] =
        DOCUMENT(ALLOW("Publish", "topic/${iot:A}/${iot:B}/${iot:ClientId}/${iot:C}"));
    _cleanup_(buf_donep) struct buf b = {0};
    char why[POLICY_WHY_BYTES];
    int seen = 0;
    buf_init(&b, POLICY_MAX_COMPILED_BYTES);
    ck_assert_int_eq(policy_compile(document, strlen(document), &b, why), ERR_OK);
    ck_assert(policy_each_variable(buf_bytes(&b), is_client, &seen));
    ck_assert_int_eq(seen, 3);
}
END_TEST

/* A pattern of many wildcards costs its length times that of the topic or the action, not more. */
START_TEST(many_wildcards_end_soon)
{
    char topic[2000];
    memset(topic, 'a', sizeof(topic) - 1);
    topic[sizeof(topic) - 1] = '\0';
    int64_t begin_us = clock_mono_us();
    ck_assert_int_eq(decide(DOCUMENT(ALLOW("Publish", "topic/*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b")),
                            POLICY_PUBLISH, topic),
                     POLICY_NO_MATCH);
    ck_assert_int_eq(decide(DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"*i*o*t*:*P*u*b*l*?*s*h*\","
                                     "\"Resource\":\"*\"}"),
                            POLICY_PUBLISH, topic),
                     POLICY_ALLOWED);
    ck_assert_int_eq(
        decide(DOCUMENT("{\"Effect\":\"Allow\",\"Action\":\"*****************************"
                        "*******************z\",\"Resource\":\"*\"}"),
               POLICY_PUBLISH, topic),
        POLICY_NO_MATCH);
    ck_assert_int_lt(clock_mono_us() - begin_us, 1000000);
}
END_TEST

SUITE("policy", the_language, what_is_no_policy_is_refused_with_a_reason,
      a_damaged_form_is_not_valid, the_variables_of_a_policy, many_wildcards_end_soon)
