/* Topics and payloads of fleet provisioning: what is read, what is refused, and the way back. */
#include <string.h>

#include "base/cleanup.h"
#include "proto/fleet/payload.h"
#include "suite.h"

static void topic_reads(const char *topic, enum enrollment_flow flow, bool keys,
                        enum fleet_format f, const char *template)
{
    struct fleet_operation op;
    ck_assert_int_eq(fleet_topic_parse(topic, &op), ERR_OK);
    ck_assert_int_eq(op.flow, flow);
    ck_assert_int_eq(op.make_key, keys);
    ck_assert_int_eq(op.format, f);
    ck_assert_str_eq(op.template_name, template);
}

START_TEST(topics_that_are_read)
{
    topic_reads("$aws/certificates/create/json", FLOW_CREATE, true, FLEET_JSON, "");
    topic_reads("$aws/certificates/create/cbor", FLOW_CREATE, true, FLEET_CBOR, "");
    topic_reads("$aws/certificates/create-from-csr/json", FLOW_CREATE, false, FLEET_JSON, "");
    topic_reads("$aws/certificates/create-from-csr/cbor", FLOW_CREATE, false, FLEET_CBOR, "");
    topic_reads("$aws/provisioning-templates/pump/provision/json", FLOW_REGISTER, false, FLEET_JSON,
                "pump");
    topic_reads("$aws/provisioning-templates/a-B_9/provision/cbor", FLOW_REGISTER, false,
                FLEET_CBOR, "a-B_9");
}
END_TEST

START_TEST(topics_refused)
{
    static const char *const topics[] = {
        "",
        "$aws",
        "aws/certificates/create/json",
        "$aws/certificates/create/json/accepted",
        "$aws/certificates/create/JSON",
        "$aws/certificates/create/",
        "$aws/certificates/create",
        "$aws/certificates/create/xml",
        "$aws/certificates/create-from-csr/json/rejected",
        "$aws/provisioning-templates//provision/json",
        "$aws/provisioning-templates/a/b/provision/json",
        "$aws/provisioning-templates/+/provision/json",
        "$aws/provisioning-templates/pump/provision/json/accepted",
        "$aws/provisioning-templates/pump/provision",
        "$aws/provisioning-templates/simpleenroll/provision/json",
        ("$aws/provisioning-templates/"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/provision/json"),
    };
    struct fleet_operation op;
    for (size_t i = 0; i < ARRAY_LEN(topics); i++)
        ck_assert_msg(fleet_topic_parse(topics[i], &op) == ERR_INVALID, "%s", topics[i]);
}
END_TEST

static json_t *decode(enum fleet_format format, const void *data, size_t len)
{
    struct fault fault = {0};
    json_t *object = NULL;
    enum err e = payload_decode(format, bytes_of(data, len), &object, &fault);
    ck_assert_msg(e == ERR_OK, "%s", fault.detail);
    return object;
}

static void refused(enum fleet_format format, const void *data, size_t len, const char *why)
{
    struct fault fault = {0};
    json_t *object = NULL;
    ck_assert_int_eq(payload_decode(format, bytes_of(data, len), &object, &fault), ERR_DENIED);
    ck_assert_ptr_null(object);
    ck_assert_msg(strstr(fault.detail, why), "\"%s\" is not in \"%s\"", why, fault.detail);
}

START_TEST(nothing_asks_for_keys)
{
    static const unsigned char map[] = {0xa0};
    const struct {
        enum fleet_format format;
        const void *data;
        size_t len;
    } empty[] = {
        {FLEET_JSON, "", 0}, {FLEET_JSON, "{}", 2}, {FLEET_CBOR, "", 0}, {FLEET_CBOR, map, 1}};
    for (size_t i = 0; i < ARRAY_LEN(empty); i++) {
        json_t *object = decode(empty[i].format, empty[i].data, empty[i].len);
        ck_assert_uint_eq(json_object_size(object), 0);
        json_decref(object);
    }
}
END_TEST

/* {"certificateOwnershipToken": "t", "parameters": {"SerialNumber": "S1"}}, by hand after RFC 8949.
 */
#define TOKEN_PAIR                                                                                 \
    "\x78\x19"                                                                                     \
    "certificateOwnershipToken"                                                                    \
    "\x61"                                                                                         \
    "t"
#define SERIAL_PAIR                                                                                \
    "\x6c"                                                                                         \
    "SerialNumber"                                                                                 \
    "\x62"                                                                                         \
    "S1"

static void register_check(const char *data, size_t len)
{
    json_t *object = decode(FLEET_CBOR, data, len);
    ck_assert_str_eq(json_string_value(json_object_get(object, "certificateOwnershipToken")), "t");
    json_t *parameters = json_object_get(object, "parameters");
    ck_assert_str_eq(json_string_value(json_object_get(parameters, "SerialNumber")), "S1");
    json_decref(object);
}

START_TEST(cbor_definite_and_indefinite)
{
    static const char definite[] = "\xa2" TOKEN_PAIR "\x6a"
                                   "parameters"
                                   "\xa1" SERIAL_PAIR;
    static const char open[] = "\xbf" TOKEN_PAIR "\x6a"
                               "parameters"
                               "\xbf" SERIAL_PAIR "\xff"
                               "\xff";
    register_check(definite, sizeof(definite) - 1);
    register_check(open, sizeof(open) - 1);
}
END_TEST

START_TEST(cbor_that_is_refused)
{
    static const struct {
        const char *data;
        size_t len;
        const char *why;
    } bad[] = {
        {"\x80", 1, "is no map"},
        {"\x61"
         "a",
         2, "is no map"},
        {"\xa1", 1, "ends within"},
        {"\xa1\x61"
         "a",
         3, "ends within"},
        {"\xa1\x61"
         "a\x01",
         4, "neither a text string"},
        {"\xa1\x61"
         "a\xf6",
         4, "neither a text string"},
        {"\xa1\x61"
         "a\x80",
         4, "neither a text string"},
        {"\xa1\x01\x61"
         "a",
         4, "a name that is no text"},
        {"\xa1\x61"
         "a\xa1\x61"
         "b\xa0",
         7, "neither a text string"},
        {"\xa2\x61"
         "a\x61"
         "b\x61"
         "a\x61"
         "c",
         9, "stands twice"},
        {"\xa1\x61\x00\x61"
         "b",
         5, "stands twice, or has a NUL"},
        {"\xa1\x61"
         "a\x61\xff",
         5, "not UTF-8"},
        {"\xa1\x61\xff\x61"
         "b",
         5, "not UTF-8"},
        {"\xa1\x61"
         "a\x62"
         "b\x00",
         6, "with a NUL"},
        {"\xa0\x00", 2, "goes on behind"},
        {"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff", 9, "ends within"},
        {"\xa1\x61"
         "a\x7b\x7f\xff\xff\xff\xff\xff\xff\xff"
         "b",
         13, "ends within"},
        {"\xff", 1, "is no map"},
        {"\xa1\x7f\x61"
         "a\xff\x61"
         "b",
         7, "a name that is no text string of definite length"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        refused(FLEET_CBOR, bad[i].data, bad[i].len, bad[i].why);
}
END_TEST

START_TEST(json_that_is_refused)
{
    static const char *const bad[] = {
        "{", "[]", "\"a\"", "{\"a\":1}{", "{\"a\":\"b\",\"a\":\"c\"}", "null"};
    char *large = calloc(1, FLEET_MAX_PAYLOAD_BYTES + 1);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        refused(FLEET_JSON, bad[i], strlen(bad[i]), "JSON payload");
    refused(FLEET_JSON, large, FLEET_MAX_PAYLOAD_BYTES + 1, "at most 16384 bytes");
    refused(FLEET_CBOR, large, FLEET_MAX_PAYLOAD_BYTES + 1, "at most 16384 bytes");
    free(large);
}
END_TEST

/* What is written is read again as it was, in both formats. */
START_TEST(round_trip)
{
    _cleanup_(arena_donep) struct arena arena = {0};
    arena_init(&arena, 1 << 20);
    json_t *object = json_pack("{s:s, s:s, s:{s:s, s:s}}", "thingName", "pump-\xc3\xa9", "long",
                               "0123456789012345678901234567890123456789", "deviceConfiguration",
                               "a", "1", "b", "");
    for (int f = FLEET_JSON; f <= FLEET_CBOR; f++) {
        struct bytes out;
        ck_assert_int_eq(payload_encode((enum fleet_format)f, object, &arena, &out), ERR_OK);
        json_t *again = decode((enum fleet_format)f, out.data, out.len);
        ck_assert(json_equal(object, again));
        json_decref(again);
    }
    json_decref(object);
}
END_TEST

/* Byte for byte: {"statusCode": 429, "errorCode": "Throttled"}. */
START_TEST(cbor_golden)
{
    static const unsigned char expected[] = "\xa2\x6a"
                                            "statusCode"
                                            "\x19\x01\xad"
                                            "\x69"
                                            "errorCode"
                                            "\x69"
                                            "Throttled";
    _cleanup_(arena_donep) struct arena arena = {0};
    struct bytes out;
    arena_init(&arena, 1 << 20);
    json_t *object = json_pack("{s:i, s:s}", "statusCode", 429, "errorCode", "Throttled");
    ck_assert_int_eq(payload_encode(FLEET_CBOR, object, &arena, &out), ERR_OK);
    ck_assert(bytes_equal(out, bytes_of(expected, sizeof(expected) - 1)));
    json_decref(object);
}
END_TEST

SUITE("fleet", topics_that_are_read, topics_refused, nothing_asks_for_keys,
      cbor_definite_and_indefinite, cbor_that_is_refused, json_that_is_refused, round_trip,
      cbor_golden)
