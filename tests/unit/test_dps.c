/* What DPS reads, and what its keys are made of. */
#include <openssl/pem.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "enroll/secrets.h"
#include "pki/key.h"
#include "pki/seal.h"
#include "proto/dps/internal.h"
#include "proto/dps/sas.h"
#include "suite.h"

#define SIG "jQ%2BJzG0w3C1yVnJbl2cEqcw6vTtn3Xn8eJf8v7fT0Vs%3D"
#define GOOD                                                                                       \
    "SharedAccessSignature sr=0ne00000001%2Fregistrations%2Fsn-1&sig=" SIG                         \
    "&se=1795453470&skn=registration"

static enum err parse(struct arena *a, const char *header, struct sas *sas)
{
    struct fault fault = {0};
    enum err e = sas_parse(a, header, sas, &fault);
    ck_assert_int_eq(e ? FAULT_SAS_MALFORMED : FAULT_NONE, fault.code);
    return e;
}

START_TEST(signatures_that_are_some)
{
    struct arena a;
    struct sas sas;
    arena_init(&a, 65536);
    ck_assert_int_eq(parse(&a, GOOD, &sas), ERR_OK);
    ck_assert_str_eq(sas.resource, "0ne00000001/registrations/sn-1");
    ck_assert(
        bytes_equal(sas.signed_text, bytes_text("0ne00000001%2Fregistrations%2Fsn-1\n1795453470")));
    ck_assert_int_eq(sas.ends_s, 1795453470);
    ck_assert_uint_eq(sas.signature.len, SHA256_BYTES);
    ck_assert_int_eq(parse(&a, "sharedaccesssignature se=1&sig=" SIG "&sr=x", &sas), ERR_OK);
    ck_assert_str_eq(sas.resource, "x");
    arena_done(&a);
}
END_TEST

START_TEST(signatures_that_are_none)
{
    static const char *const bad[] = {"",
                                      "SharedAccessSignature",
                                      "SharedAccessSignature ",
                                      "Bearer x",
                                      "SharedAccessSignature sr=x&se=1",
                                      "SharedAccessSignature sr=x&sig=" SIG,
                                      "SharedAccessSignature sig=" SIG "&se=1",
                                      "SharedAccessSignature sr=x&sig=" SIG "&se=1&se=1",
                                      "SharedAccessSignature sr=x&sig=" SIG "&se=-1",
                                      "SharedAccessSignature sr=x&sig=" SIG "&se=1x",
                                      "SharedAccessSignature sr=x&sig=" SIG
                                      "&se=99999999999999999999",
                                      "SharedAccessSignature sr=x&sig=" SIG "&se=1&skn=owner",
                                      "SharedAccessSignature sr=x&sig=" SIG "&se=1&other=1",
                                      "SharedAccessSignature sr=x&sig=" SIG "&se=1&",
                                      "SharedAccessSignature sr=%zz&sig=" SIG "&se=1",
                                      "SharedAccessSignature sr=x%00y&sig=" SIG "&se=1",
                                      "SharedAccessSignature sr=x&sig=AAAA&se=1",
                                      "SharedAccessSignature sr=x&sig=%%%&se=1"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct arena a;
        struct sas sas;
        arena_init(&a, 65536);
        ck_assert_msg(parse(&a, bad[i], &sas) == ERR_DENIED, "%s", bad[i]);
        arena_done(&a);
    }
}
END_TEST

START_TEST(what_a_signature_is_for_and_until_when)
{
    const int64_t ends = 1795453470;
    static const struct {
        const char *scope, *id;
        int64_t at;
        enum fault_code code;
    } cases[] = {
        {"0ne00000001", "sn-1", 0, FAULT_NONE},
        {"0NE00000001", "SN-1", 0, FAULT_NONE},
        {"0ne00000001", "sn-1", 300, FAULT_NONE},
        {"0ne00000001", "sn-1", 301, FAULT_SAS_EXPIRED},
        {"0ne00000001", "sn-1", -366 * 86400, FAULT_NONE},
        {"0ne00000001", "sn-1", -366 * 86400 - 1, FAULT_SAS_EXPIRED},
        {"0ne00000001", "sn-11", 0, FAULT_SAS_RESOURCE},
        {"0ne00000001", "sn-", 0, FAULT_SAS_RESOURCE},
        {"0ne0000000", "sn-1", 0, FAULT_SAS_RESOURCE},
        {"0ne000000011", "sn-1", 0, FAULT_SAS_RESOURCE},
    };
    struct arena a;
    struct sas sas;
    arena_init(&a, 65536);
    ck_assert_int_eq(parse(&a, GOOD, &sas), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fault fault = {0};
        enum err e = sas_check(&sas, cases[i].scope, cases[i].id, ends + cases[i].at, &fault);
        ck_assert_msg(fault.code == cases[i].code && (e == ERR_OK) == (fault.code == FAULT_NONE),
                      "%zu", i);
    }
    arena_done(&a);
}
END_TEST

START_TEST(an_operation_is_of_one_registration)
{
    char id[DPS_OPERATION_BYTES], longest[130];
    enum dps_kept kept = DPS_LOST;
    ck_assert_int_eq(dps_operation_make("SN-1", DPS_KEPT, "01a216eb5bc57c5a97a3b23c3e9901f1", id),
                     ERR_OK);
    ck_assert(dps_operation_is(id, "sn-1", &kept) && kept == DPS_KEPT);
    ck_assert(!dps_operation_is(id, "sn-2", &kept));
    ck_assert(!dps_operation_is("", "sn-1", &kept) && !dps_operation_is("4.", "sn-1", &kept));
    id[0] = '9';
    ck_assert(!dps_operation_is(id, "sn-1", &kept));
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    ck_assert_int_eq(dps_operation_make(longest, DPS_KEPT, "x", id), ERR_INVALID);
}
END_TEST

static enum err body_read(struct arena *a, const char *body, struct dps_request *rq,
                          enum fault_code *code)
{
    struct exchange x = {.arena = a};
    enum err e = dps_request_read(&x, "sn-1", bytes_text(body), rq);
    *code = x.fault.code;
    return e;
}

START_TEST(bodies)
{
    static const struct {
        const char *body;
        bool good, says;
    } cases[] = {
        {"", true, false},
        {"{}", true, false},
        {"{\"registrationId\":\"SN-1\"}", true, false},
        {"{\"registrationId\":\"sn-1\",\"payload\":{}}", true, false},
        {"{\"later\":{\"a\":[1]}}", true, false},
        {"{\"csr\":\"MIIB\"}", true, true},
        {"{\"csr\":null,\"tpm\":null,\"payload\":null}", true, false},
        {"{\"tpm\":{\"endorsementKey\":\"AAAA\"}}", true, true},
        {"{\"tpm\":{\"endorsementKey\":\"AAAA\",\"storageRootKey\":\"AAAA\"},\"payload\":{"
         "\"ekCert\":[\"AAAA\",\"AAAA\"]}}",
         true, true},
        {"{\"registrationId\":\"sn-2\"}", false, false},
        {"{\"registrationId\":1}", false, false},
        {"{\"csr\":\"a\",\"csr\":\"b\"}", false, false},
        {"{\"csr\":\"a\",\"clientCertificateCsr\":\"b\"}", false, false},
        {"{\"tpm\":{}}", false, false},
        {"{\"tpm\":{\"endorsementKey\":\"!\"}}", false, false},
        {"{\"tpm\":{\"endorsementKey\":\"AAAA\"},\"payload\":{\"ekCert\":[1]}}", false, false},
        {"{\"tpm\":{\"endorsementKey\":\"AAAA\"},\"payload\":{\"ekCert\":[\"\",\"\",\"\",\"\",\"\","
         "\"\",\"\",\"\",\"\"]}}",
         false, false},
        {"[]", false, false},
        {"{", false, false},
        {"{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}", false, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a;
        struct dps_request rq = {0};
        enum fault_code code = FAULT_NONE;
        arena_init(&a, 1 << 20);
        enum err e = body_read(&a, cases[i].body, &rq, &code);
        ck_assert_msg((e == ERR_OK) == cases[i].good &&
                          (cases[i].good || code == FAULT_REQUEST_MALFORMED),
                      "%s", cases[i].body);
        ck_assert_msg(!cases[i].good || rq.has_body == cases[i].says, "%s", cases[i].body);
        arena_done(&a);
    }
}
END_TEST

/* The vector of Azure's documents. */
START_TEST(derived_keys)
{
    struct arena a;
    struct bytes master;
    uint8_t key[SHA256_BYTES];
    _cleanup_(buf_donep) struct buf text = {0};
    arena_init(&a, 8192);
    buf_init(&text, 64);
    ck_assert_int_eq(
        base64_decode(&a,
                      bytes_text("8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/"
                                 "lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="),
                      &master),
        ERR_OK);
    ck_assert_int_eq(secrets_derive(master, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6", key), ERR_OK);
    base64_encode(&text, bytes_of(key, sizeof(key)));
    ck_assert_str_eq(buf_text(&text), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
    arena_done(&a);
}
END_TEST

static EVP_PKEY *outside;

static EVP_PKEY *key_get(const struct signer *s)
{
    (void)s;
    return outside;
}

START_TEST(secrets_open_where_they_were_sealed)
{
    static const struct signer_ops ops = {.key_get = key_get};
    const struct signer signer = {.ops = &ops};
    _cleanup_(buf_donep) struct buf wrapped = {0}, sealed = {0}, open = {0};
    struct sealer *sealer = NULL, *other = NULL;
    uint8_t a[SHA256_BYTES], b[SHA256_BYTES];
    buf_init(&wrapped, SEAL_MAX_WRAPPED_BYTES);
    buf_init(&sealed, 256);
    buf_init(&open, 256);
    ck_assert_int_eq(key_generate(KEY_P256, &outside), ERR_OK);
    ck_assert_int_eq(seal_key_make(&signer, &wrapped), ERR_INVALID);
    key_free(outside);
    ck_assert_int_eq(key_generate(KEY_RSA2048, &outside), ERR_OK);
    ck_assert_int_eq(seal_key_make(&signer, &wrapped), ERR_OK);
    ck_assert_int_eq(sealer_new(&signer, buf_bytes(&wrapped), &sealer), ERR_OK);
    ck_assert_int_eq(seal_close(sealer, "here", bytes_text("secret"), &sealed), ERR_OK);
    ck_assert_uint_eq(sealed.len, 6 + SEAL_OVERHEAD_BYTES);
    ck_assert_int_eq(seal_open(sealer, "here", buf_bytes(&sealed), &open), ERR_OK);
    ck_assert(bytes_equal(buf_bytes(&open), bytes_text("secret")));
    ck_assert_int_eq(seal_open(sealer, "there", buf_bytes(&sealed), &open), ERR_INVALID);
    for (size_t i = 0; i < sealed.len; i++) {
        sealed.data[i] ^= 1;
        ck_assert_int_eq(seal_open(sealer, "here", buf_bytes(&sealed), &open), ERR_INVALID);
        sealed.data[i] ^= 1;
    }
    ck_assert_int_eq(
        seal_open(sealer, "here", bytes_of(sealed.data, SEAL_OVERHEAD_BYTES - 1), &open),
        ERR_INVALID);
    ck_assert(seal_derive(sealer, "x", a) == ERR_OK && seal_derive(sealer, "y", b) == ERR_OK &&
              memcmp(a, b, sizeof(a)) != 0);
    EVP_PKEY *right = outside;
    ck_assert_int_eq(key_generate(KEY_RSA2048, &outside), ERR_OK);
    ck_assert_int_eq(sealer_new(&signer, buf_bytes(&wrapped), &other), ERR_INVALID);
    key_free(outside);
    key_free(right);
    sealer_free(sealer);
}
END_TEST

SUITE("dps", signatures_that_are_some, signatures_that_are_none,
      what_a_signature_is_for_and_until_when, an_operation_is_of_one_registration, bodies,
      derived_keys, secrets_open_where_they_were_sealed)
