/* SCEP's messages, in bytes: what is read, and what of them is refused wherever they are cut or
 * changed. */
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../fuzz/scep_ra.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "pki/csr.h"
#include "pki/key.h"
#include "pki/scep.h"
#include "suite.h"

enum { ARENA_BYTES = 8 << 20, MAX_PATH = 4096 };

static EVP_PKEY *ra_key;
static const struct scep_options strict = {false, false}, lax = {true, true};

static EVP_PKEY *key_get(const struct signer *s)
{
    (void)s;
    return ra_key;
}

static void signer_keep(struct signer *s)
{
    (void)s;
}

static const struct signer_ops ops = {.key_get = key_get, .free = signer_keep};
static struct signer signer = {.ops = &ops};

static struct scep_ra *authority(void)
{
    struct scep_ra *ra = NULL;
    X509 *cert = NULL;
    size_t count = 0;
    BIO *in = BIO_new_mem_buf(scep_ra_key_pem, -1);
    ra_key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);
    BIO_free_all(in);
    ck_assert(ra_key && cert_parse_pem(bytes_text(scep_ra_cert_pem), &cert, 1, &count) == ERR_OK);
    ck_assert_int_eq(scep_ra_new(cert, &signer, &ra), ERR_OK);
    cert_free(cert);
    return ra;
}

static void authority_end(struct scep_ra *ra)
{
    scep_ra_free(ra);
    EVP_PKEY_free(ra_key);
    ra_key = NULL;
}

/* A message of the corpus, as a client made it. */
static void sample(const char *name, struct buf *ret)
{
    char path[MAX_PATH];
    const char *root = getenv("MUSTER_SOURCE_ROOT");
    snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/scep/%s", root ? root : ".", name);
    buf_init(ret, SCEP_MAX_MESSAGE_BYTES);
    ck_assert_msg(file_load(path, ret) == ERR_OK, "%s", path);
}

START_TEST(a_request_is_read_and_opened)
{
    _cleanup_(buf_donep) struct buf b = {0}, renewal = {0};
    struct arena arena;
    struct scep_message m;
    struct csr csr = {0};
    struct bytes content;
    struct fault fault = {0};
    struct scep_ra *ra = authority();
    arena_init(&arena, ARENA_BYTES);
    sample("pkcsreq", &b);
    ck_assert_int_eq(scep_read(&arena, buf_bytes(&b), &strict, &m, &fault), ERR_OK);
    ck_assert_int_eq(m.type, SCEP_PKCS_REQ);
    ck_assert(m.self_signed && m.cert_count == 1 && m.nonce.len == 16 && m.digest == NID_sha256);
    ck_assert_int_eq(scep_open(ra, &arena, &strict, &m, &content, &fault), ERR_OK);
    ck_assert_int_eq(m.cipher, NID_aes_128_cbc);
    ck_assert_int_eq(csr_decode(&arena, content, &csr, &fault), ERR_OK);
    ck_assert_str_eq(csr.challenge, "mst_abc");
    ck_assert_mem_eq(csr.spki_sha256, m.signer_spki, SHA256_BYTES);
    csr_done(&csr);
    sample("renewal", &renewal);
    ck_assert_int_eq(scep_read(&arena, buf_bytes(&renewal), &strict, &m, &fault), ERR_OK);
    ck_assert(m.type == SCEP_RENEWAL_REQ && m.cert_count == 2 && m.digest == NID_sha512);
    arena_done(&arena);
    authority_end(ra);
}
END_TEST

START_TEST(what_is_refused_and_as_what)
{
    static const struct {
        const char *name;
        enum fault_code read, open; /* FAULT_NONE: it is not */
    } cases[] = {{"des3-sha1", FAULT_SCEP_ALGORITHM, FAULT_NONE},
                 {"two-recipients", FAULT_NONE, FAULT_SCEP_MALFORMED},
                 {"no-envelope", FAULT_NONE, FAULT_SCEP_MALFORMED},
                 {"no-attributes", FAULT_SCEP_MALFORMED, FAULT_NONE},
                 {"cut", FAULT_SCEP_MALFORMED, FAULT_NONE}};
    struct scep_ra *ra = authority();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        _cleanup_(buf_donep) struct buf b = {0};
        struct arena arena;
        struct scep_message m;
        struct bytes content;
        struct fault fault = {0};
        arena_init(&arena, ARENA_BYTES);
        sample(cases[i].name, &b);
        enum err e = scep_read(&arena, buf_bytes(&b), &strict, &m, &fault);
        ck_assert_msg(fault.code == cases[i].read, "%s: %s", cases[i].name, fault.detail);
        if (!e)
            (void)!scep_open(ra, &arena, &strict, &m, &content, &fault);
        ck_assert_msg(e || fault.code == cases[i].open, "%s: %s", cases[i].name, fault.detail);
        arena_done(&arena);
    }
    authority_end(ra);
}
END_TEST

START_TEST(old_algorithms_where_they_are_allowed)
{
    _cleanup_(buf_donep) struct buf b = {0};
    struct arena arena;
    struct scep_message m;
    struct bytes content;
    struct fault fault = {0};
    struct scep_ra *ra = authority();
    arena_init(&arena, ARENA_BYTES);
    sample("des3-sha1", &b);
    ck_assert_int_eq(scep_read(&arena, buf_bytes(&b), &lax, &m, &fault), ERR_OK);
    ck_assert_int_eq(scep_open(ra, &arena, &strict, &m, &content, &fault), ERR_DENIED);
    ck_assert_int_eq(fault.code, FAULT_SCEP_ALGORITHM);
    ck_assert_int_eq(scep_open(ra, &arena, &lax, &m, &content, &fault), ERR_OK);
    arena_done(&arena);
    authority_end(ra);
}
END_TEST

/* Nothing of a message that was signed can be changed or left out. */
START_TEST(a_damaged_message_is_no_message)
{
    _cleanup_(buf_donep) struct buf b = {0};
    sample("pkcsreq", &b);
    for (size_t at = 0; at < b.len; at += 7) {
        struct arena arena;
        struct scep_message m;
        struct fault fault = {0};
        arena_init(&arena, ARENA_BYTES);
        ck_assert_int_eq(scep_read(&arena, bytes_of(b.data, at), &strict, &m, &fault), ERR_DENIED);
        ck_assert_int_eq(fault.code, FAULT_SCEP_MALFORMED);
        arena_done(&arena);
    }
}
END_TEST

START_TEST(an_answer_for_each_status)
{
    _cleanup_(buf_donep) struct buf b = {0};
    struct arena arena;
    struct scep_message m;
    struct fault fault = {0};
    struct scep_ra *ra = authority();
    arena_init(&arena, ARENA_BYTES);
    sample("pkcsreq", &b);
    ck_assert_int_eq(scep_read(&arena, buf_bytes(&b), &strict, &m, &fault), ERR_OK);
    static const enum scep_status statuses[] = {SCEP_SUCCESS, SCEP_FAILURE, SCEP_PENDING};
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
        struct scep_message again;
        struct bytes der;
        const struct scep_reply r = {
            .message = &m, .status = statuses[i], .fail_text = "why", .content = bytes_text("x")};
        ck_assert_int_eq(scep_write(ra, &arena, &r, &der), ERR_OK);
        if (statuses[i] != SCEP_SUCCESS)
            continue; /* without content, as nothing that is asked may be */
        ck_assert_int_eq(scep_read(&arena, der, &strict, &again, &fault), ERR_OK);
        ck_assert_int_eq(again.type, SCEP_CERT_REP);
        ck_assert_str_eq(again.transaction, m.transaction);
        ck_assert_uint_gt(again.content.len, 0);
    }
    arena_done(&arena);
    authority_end(ra);
}
END_TEST

SUITE("scep", a_request_is_read_and_opened, what_is_refused_and_as_what,
      old_algorithms_where_they_are_allowed, a_damaged_message_is_no_message,
      an_answer_for_each_status)
