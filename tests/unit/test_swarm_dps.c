/* What the swarm's devices say to DPS, against the vector of its documents and what SDKs write, and
 * what they take for an answer. */
#include <string.h>

#include "dps.h"
#include "suite.h"

static const char master_text[] =
    "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==\n";
static const char derived_text[] = "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=";

START_TEST(keys)
{
    uint8_t master[DPS_MAX_KEY_BYTES], want[DPS_MAX_KEY_BYTES], got[SHA256_BYTES];
    size_t len = 0, want_len = 0;
    ck_assert_int_eq(dps_key_read(bytes_text(master_text), master, &len), ERR_OK);
    ck_assert_uint_eq(len, DPS_MAX_KEY_BYTES);
    ck_assert_int_eq(dps_key_read(bytes_text(derived_text), want, &want_len), ERR_OK);
    ck_assert_uint_eq(want_len, SHA256_BYTES);
    ck_assert_int_eq(
        dps_key_derive(bytes_of(master, len), "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6", got), ERR_OK);
    ck_assert_mem_eq(got, want, SHA256_BYTES);
    ck_assert_int_eq(dps_key_derive(bytes_of(master, len), "sn-007", got), ERR_OK);
    ck_assert_mem_ne(got, want, SHA256_BYTES);
}
END_TEST

START_TEST(keys_refused)
{
    static const char *const rows[] = {
        "",                         /* nothing */
        "MDEyMzQ1Njc4OWFiY2Rl",     /* 15 bytes */
        "MDEyMzQ1Njc4OWFiY2RlZg",   /* no padding */
        "MDEyMzQ1Njc4OWFiY2RlZg=!", /* no base64 */
        /* 65 bytes */
        "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=",
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint8_t key[DPS_MAX_KEY_BYTES];
        size_t len = 77;
        ck_assert_msg(dps_key_read(bytes_text(rows[i]), key, &len) == ERR_INVALID, "row %zu", i);
        ck_assert_uint_eq(len, 77);
    }
}
END_TEST

START_TEST(signature)
{
    uint8_t key[DPS_MAX_KEY_BYTES];
    size_t len = 0;
    struct buf b;
    ck_assert_int_eq(dps_key_read(bytes_text(derived_text), key, &len), ERR_OK);
    buf_init(&b, DPS_MAX_SAS_BYTES);
    ck_assert_int_eq(dps_sas_write(&b, bytes_of(key, len), "0ne00000001", "pump:7", 1700000000),
                     ERR_OK);
    ck_assert_str_eq(buf_text(&b), "SharedAccessSignature sr=0ne00000001%2Fregistrations%2Fpump%3A7"
                                   "&sig=%2B6%2B6YbY3pOcaF%2BaIScnShpSietYbxB92vb5k6W%2FRRjo%3D"
                                   "&se=1700000000&skn=registration");
    buf_done(&b);
    buf_init(&b, 100);
    ck_assert_int_eq(dps_sas_write(&b, bytes_of(key, len), "0ne00000001", "pump:7", 1700000000),
                     ERR_INVALID);
    buf_done(&b);
}
END_TEST

START_TEST(body)
{
    struct buf b;
    buf_init(&b, 200);
    ck_assert_int_eq(dps_body_write(&b, "pump-7", NULL), ERR_OK);
    ck_assert_str_eq(buf_text(&b), "{\"registrationId\":\"pump-7\"}");
    buf_reset(&b);
    ck_assert_int_eq(dps_body_write(&b, "pump-7", "MIIB"), ERR_OK);
    ck_assert_str_eq(buf_text(&b), "{\"registrationId\":\"pump-7\",\"csr\":\"MIIB\"}");
    buf_done(&b);
}
END_TEST

static json_t *json(const char *text)
{
    json_t *o = json_loads(text, 0, NULL);
    ck_assert_msg(o != NULL, "%s", text);
    return o;
}

#define STATE                                                                                      \
    "{\"registrationId\":\"Pump-7\",\"status\":\"assigned\",\"assignedHub\":\"b.example.com\","    \
    "\"deviceId\":\"pump-7\""
#define DONE(state)                                                                                \
    "{\"operationId\":\"4.a.b\",\"status\":\"assigned\",\"registrationState\":" state

START_TEST(answers)
{
    struct dps_answer a;
    json_t *o = json(DONE(STATE "}}"));
    ck_assert_ptr_null(dps_answer_read(o, 200, "pump-7", true, &a));
    ck_assert(a.state == DPS_ASSIGNED && !a.certificate);
    ck_assert_str_eq(a.hub, "b.example.com");
    ck_assert_str_eq(a.device, "pump-7");
    json_decref(o);
    o = json(DONE(STATE ",\"issuedCertificateChain\":[\"MIIA\",\"MIIB\"]}}"));
    ck_assert_ptr_null(dps_answer_read(o, 200, "pump-7", true, &a));
    ck_assert_str_eq(a.certificate, "MIIA");
    json_decref(o);
    o = json(STATE "}"); /* of a look-up */
    ck_assert_ptr_null(dps_answer_read(o, 200, "pump-7", false, &a));
    ck_assert_str_eq(a.hub, "b.example.com");
    json_decref(o);
    o = json("{\"operationId\":\"4.a.b\",\"status\":\"assigning\"}");
    ck_assert_ptr_null(dps_answer_read(o, 202, "pump-7", true, &a));
    ck_assert(a.state == DPS_ASSIGNING);
    ck_assert_str_eq(a.operation, "4.a.b");
    json_decref(o);
    o = json("{\"status\":\"failed\",\"registrationState\":{\"errorCode\":400208}}");
    ck_assert_ptr_null(dps_answer_read(o, 200, "pump-7", true, &a));
    ck_assert(a.state == DPS_FAILED && a.code == 400208);
    json_decref(o);
}
END_TEST

#define X32 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

START_TEST(answers_that_are_none)
{
    static const struct {
        const char *text;
        int status;
        bool wrapped;
    } rows[] = {
        {"[]", 200, true},
        {"{}", 200, true},
        {"{}", 202, true},
        {DONE(STATE "}}"), 202, true},  /* done, as not done */
        {DONE("{}}"), 200, true},       /* no state */
        {STATE "}", 200, true},         /* a look-up's, of an operation */
        {DONE(STATE "}}"), 200, false}, /* and the reverse */
        {DONE(STATE ",\"issuedCertificateChain\":[]}}"), 200, true},
        {DONE(STATE ",\"issuedCertificateChain\":[7]}}"), 200, true},
        {DONE("{\"registrationId\":\"pump-8\",\"status\":\"assigned\",\"assignedHub\":\"b\","
              "\"deviceId\":\"d\"}}"),
         200, true},
        {DONE("{\"registrationId\":\"pump-7\",\"status\":\"assigned\",\"deviceId\":\"d\"}}"), 200,
         true}, /* no broker */
        {DONE("{\"registrationId\":\"pump-7\",\"status\":\"assigned\",\"assignedHub\":\"b\"}}"),
         200, true}, /* no device */
        {"{\"operationId\":\"4.a.b\",\"status\":\"assigning\"}", 200, true},
        {"{\"operationId\":\"4.a.b\",\"status\":\"assigning\"}", 202, false},
        {"{\"operationId\":\"\",\"status\":\"assigning\"}", 202, true},
        {"{\"operationId\":\"x" X32 X32 X32 X32 "\",\"status\":\"assigning\"}", 202, true},
        {"{\"status\":\"failed\",\"registrationState\":{}}", 200, true},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct dps_answer a = {.code = 77};
        json_t *o = json(rows[i].text);
        ck_assert_msg(dps_answer_read(o, rows[i].status, "pump-7", rows[i].wrapped, &a) != NULL,
                      "row %zu", i);
        ck_assert_int_eq(a.code, 77);
        json_decref(o);
    }
    struct dps_answer a;
    ck_assert_ptr_nonnull(dps_answer_read(NULL, 200, "pump-7", true, &a)); /* no JSON at all */
}
END_TEST

SUITE("swarm_dps", keys, keys_refused, signature, body, answers, answers_that_are_none)
