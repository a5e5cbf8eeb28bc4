#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json_out.h"
#include "pki/key.h"
#include "pki/ledger.h"
#include "suite.h"

enum { MAX_BYTES = 1 << 20 };

/* A file of three entries and a seal. */
static void file_make(EVP_PKEY *key, struct buf *b)
{
    struct ledger l;
    ledger_start(&l);
    buf_init(b, MAX_BYTES);
    for (int i = 0; i < 3; i++) {
        size_t begin = b->len;
        ledger_begin(&l, b);
        json_int(b, "unit", i);
        ck_assert_int_eq(ledger_end(&l, b, begin), ERR_OK);
    }
    ck_assert_int_eq(ledger_seal(&l, key, b), ERR_OK);
    ck_assert_int_eq(l.n, 4);
}

/* How many lines follow one another from the start; ret_sealed: up to which a seal holds. */
static int follow(const char *text, EVP_PKEY *key, int64_t *ret_sealed)
{
    struct ledger l;
    struct arena a;
    int good = 0;
    ledger_start(&l);
    arena_init(&a, MAX_BYTES);
    *ret_sealed = 0;
    while (*text) {
        struct ledger_line line;
        size_t len = strcspn(text, "\n");
        if (ledger_read(bytes_of(text, len), &a, &line) || !ledger_follows(&l, &line))
            break;
        if (ledger_seal_verify(&line, key))
            *ret_sealed = line.n;
        ledger_step(&l, &line);
        text += len + 1;
        good++;
    }
    arena_done(&a);
    return good;
}

START_TEST(what_was_written_follows_and_its_seal_holds)
{
    static const enum key_kind kinds[] = {KEY_P256, KEY_P384, KEY_RSA2048, KEY_ED25519};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        EVP_PKEY *key = NULL;
        struct buf b;
        int64_t sealed = 0;
        ck_assert_int_eq(key_generate(kinds[i], &key), ERR_OK);
        file_make(key, &b);
        ck_assert_int_eq(follow(buf_text(&b), key, &sealed), 4);
        ck_assert_int_eq(sealed, 4);
        buf_done(&b);
        key_free(key);
    }
}
END_TEST

/* The text with its n-th occurrence of old changed into new, of the same length. */
static void change(struct buf *b, const char *old, const char *new)
{
    char *at = memmem(b->data, b->len, old, strlen(old));
    ck_assert_ptr_nonnull(at);
    memcpy(at, new, strlen(new));
}

START_TEST(what_was_changed_is_seen)
{
    static const struct {
        const char *old;
        const char *new;
        int good;
    } rows[] = {
        {"\"unit\":0", "\"unit\":7", 1},
        {"\"unit\":2", "\"unit\":7", 3},
        {"{\"n\":2", "{\"n\":5", 1},
        {"{\"n\":1,\"prev\":\"0", "{\"n\":1,\"prev\":\"1", 0},
    };
    EVP_PKEY *key = NULL, *other = NULL;
    struct buf b;
    int64_t sealed = 0;
    ck_assert_int_eq(key_generate(KEY_P256, &key), ERR_OK);
    ck_assert_int_eq(key_generate(KEY_P256, &other), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        file_make(key, &b);
        change(&b, rows[i].old, rows[i].new);
        ck_assert_msg(follow(buf_text(&b), key, &sealed) == rows[i].good, "%s", rows[i].old);
        ck_assert_int_eq(sealed, 0);
        buf_done(&b);
    }
    file_make(key, &b);
    ck_assert_int_eq(follow(buf_text(&b), other, &sealed), 4);
    ck_assert_int_eq(sealed, 0);
    buf_done(&b);
    key_free(key);
    key_free(other);
}
END_TEST

START_TEST(what_is_no_line_is_refused)
{
#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"
    static const char *const rejects[] = {
        "",
        "{}",
        "{\"n\":0,\"prev\":\"" ZEROS "\"}",
        "{\"n\":-1,\"prev\":\"" ZEROS "\"}",
        "{\"n\":01,\"prev\":\"" ZEROS "\"}",
        "{\"n\":9999999999999999999,\"prev\":\"" ZEROS "\"}",
        "{\"n\": 1,\"prev\":\"" ZEROS "\"}",
        "{\"n\":1,\"prev\":\"" ZEROS,
        "{\"n\":1,\"prev\":\"" ZEROS "\"",
        "{\"n\":1,\"prev\":\"0A\"}",
        "{\"n\":1,\"prev\":\"A" ZEROS "\"}",
        "{\"n\":1,\"prev\":\"" ZEROS "\",\"seal\":\"",
        "{\"n\":1,\"prev\":\"" ZEROS "\",\"seal\":\"AA\"}",
        "{\"n\":1,\"prev\":\"" ZEROS "\",\"seal\":\"AAAA\",\"more\":1}",
    };
    struct arena a;
    struct ledger_line line;
    arena_init(&a, MAX_BYTES);
    for (size_t i = 0; i < ARRAY_LEN(rejects); i++)
        ck_assert_msg(ledger_read(bytes_text(rejects[i]), &a, &line) == ERR_INVALID, "%s",
                      rejects[i]);
    ck_assert_int_eq(ledger_read(bytes_text("{\"n\":1,\"prev\":\"" ZEROS "\"}"), &a, &line),
                     ERR_OK);
    arena_done(&a);
}
END_TEST

SUITE("ledger", what_was_written_follows_and_its_seal_holds, what_was_changed_is_seen,
      what_is_no_line_is_refused)
