#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/base64.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/gate.h"
#include "base/histogram.h"
#include "base/id.h"
#include "base/json_out.h"
#include "base/limit.h"
#include "base/log.h"
#include "base/secret.h"
#include "base/text.h"
#include "suite.h"

START_TEST(arena_is_bounded_and_zeroed)
{
    struct arena a;
    arena_init(&a, 1000);
    uint8_t *p = arena_alloc(&a, 600);
    ck_assert_ptr_nonnull(p);
    for (int i = 0; i < 600; i++)
        ck_assert_int_eq(p[i], 0);
    ck_assert_ptr_null(arena_alloc(&a, 600));
    ck_assert_str_eq(arena_strdup(&a, "still"), "still");
    ck_assert_str_eq(arena_printf(&a, "%d-%s", 7, "x"), "7-x");
    ck_assert_uint_eq((uintptr_t)arena_alloc(&a, 3) % 16, 0);
    arena_done(&a);
}
END_TEST

START_TEST(buf_drops_what_does_not_fit_whole)
{
    struct buf b;
    buf_init(&b, 5);
    buf_add_text(&b, "abc");
    buf_add_text(&b, "def");
    ck_assert(b.overflow);
    ck_assert_str_eq(buf_text(&b), "abc");
    buf_done(&b);
    buf_done(&b);
}
END_TEST

/* RFC 4648 section 10 */
static const char *const vectors[][2] = {
    {"", ""},
    {"f", "Zg=="},
    {"fo", "Zm8="},
    {"foo", "Zm9v"},
    {"foob", "Zm9vYg=="},
    {"fooba", "Zm9vYmE="},
    {"foobar", "Zm9vYmFy"},
};

START_TEST(base64_vectors_both_ways)
{
    for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
        struct buf b;
        struct arena a;
        struct bytes out;
        arena_init(&a, 4096);
        buf_init(&b, 64);
        base64_encode(&b, bytes_text(vectors[i][0]));
        ck_assert_str_eq(buf_text(&b), vectors[i][1]);
        ck_assert_int_eq(base64_decode(&a, bytes_text(vectors[i][1]), &out), ERR_OK);
        ck_assert(bytes_equal(out, bytes_text(vectors[i][0])));
        buf_done(&b);
        arena_done(&a);
    }
}
END_TEST

START_TEST(base64_takes_white_space_and_nothing_else)
{
    static const char *const good[] = {"Zm9v\r\nYmFy", " Zm 9v\tYm\nFy \n", "Zm9vYmFy\n"};
    static const char *const bad[] = {"Z",    "Zg",       "Zg=",   "Zg===",    "Zh==",  "Zm9=",
                                      "=Zg=", "Zg==Zg==", "Zm9v-", "Zm9v_A==", "Zm\0v", "Zm9v,"};
    struct arena a;
    struct bytes out;
    arena_init(&a, 65536);
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        ck_assert_int_eq(base64_decode(&a, bytes_text(good[i]), &out), ERR_OK);
        ck_assert(bytes_equal(out, bytes_text("foobar")));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(base64_decode(&a, bytes_text(bad[i]), &out) == ERR_INVALID, "%s", bad[i]);
    arena_done(&a);
}
END_TEST

START_TEST(base64_round_trips_random_bytes)
{
    uint8_t data[200];
    for (size_t len = 0; len < sizeof(data); len += 7) {
        struct arena a;
        struct buf b;
        struct bytes out;
        ck_assert_int_eq(secret_random(data, sizeof(data)), ERR_OK);
        arena_init(&a, 4096);
        buf_init(&b, 1024);
        base64_encode(&b, bytes_of(data, len));
        ck_assert_int_eq(base64_decode(&a, buf_bytes(&b), &out), ERR_OK);
        ck_assert(bytes_equal(out, bytes_of(data, len)));
        buf_done(&b);
        arena_done(&a);
    }
}
END_TEST

START_TEST(text_utf8_refuses_what_rfc_3629_refuses)
{
    ck_assert(text_is_printable_utf8("Grüezi 数 😀"));
    static const char *const bad[] = {
        "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80", "\xe2\x82", "a\nb", "\x7f", "\xff"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(!text_is_printable_utf8(bad[i]), "%zu", i);
}
END_TEST

START_TEST(text_numbers_and_durations)
{
    int64_t n = -1;
    ck_assert_int_eq(text_parse_int("42", 0, 100, &n), ERR_OK);
    ck_assert_int_eq(n, 42);
    static const char *const bad[] = {
        "", "+1", " 1", "1 ", "1x", "101", "-1", "99999999999999999999", "0x10"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(text_parse_int(bad[i], 0, 100, &n) == ERR_INVALID, "%s", bad[i]);
    ck_assert_int_eq(n, 42);
    static const struct {
        const char *text;
        int64_t seconds;
    } durations[] = {{"0s", 0},      {"90s", 90},    {"5m", 300},     {"2h", 7200},
                     {"3d", 259200}, {"1w", 604800}, {"1y", 31536000}};
    for (size_t i = 0; i < ARRAY_LEN(durations); i++) {
        ck_assert_int_eq(text_parse_duration(durations[i].text, 100000000, &n), ERR_OK);
        ck_assert_int_eq(n, durations[i].seconds);
    }
    static const char *const no_durations[] = {"",  "5", "d", "-1d", "1.5h", "1d2h", "99999999999y",
                                               "1D"};
    for (size_t i = 0; i < ARRAY_LEN(no_durations); i++)
        ck_assert_msg(text_parse_duration(no_durations[i], 100000000, &n) == ERR_INVALID, "%s",
                      no_durations[i]);
}
END_TEST

START_TEST(text_url_decodes_in_place)
{
    char good[] = "a%20b%2Fc", nul[] = "a%00", cut[] = "a%2", odd[] = "%zz";
    ck_assert_int_eq(text_url_decode(good), ERR_OK);
    ck_assert_str_eq(good, "a b/c");
    ck_assert_int_eq(text_url_decode(nul), ERR_INVALID);
    ck_assert_int_eq(text_url_decode(cut), ERR_INVALID);
    ck_assert_int_eq(text_url_decode(odd), ERR_INVALID);
}
END_TEST

START_TEST(json_escapes_and_replaces)
{
    struct buf b;
    buf_init(&b, 1024);
    json_begin_object(&b);
    json_text(&b, "a", "q\"\\\n\x01\xff é");
    json_text(&b, "none", NULL);
    json_int(&b, "n", -5);
    json_bool(&b, "t", true);
    json_hex(&b, "h", bytes_of("\x01\xab", 2));
    json_key(&b, "l");
    json_begin_array(&b);
    json_item_text(&b, "x");
    json_item_text(&b, "y");
    json_end_array(&b);
    json_raw(&b, "r", "{\"k\":1}");
    json_end_object(&b);
    ck_assert_str_eq(buf_text(&b), "{\"a\":\"q\\\"\\\\\\n\\u0001\\ufffd "
                                   "é\",\"none\":null,\"n\":-5,\"t\":true,\"h\":\"01ab\",\"l\":["
                                   "\"x\",\"y\"],\"r\":{\"k\":1}}");
    buf_done(&b);
}
END_TEST

START_TEST(ids_are_unique_and_in_time_order)
{
    char before[ID_TEXT_BYTES] = "", now[ID_TEXT_BYTES];
    for (int i = 0; i < 1000; i++) {
        ck_assert_int_eq(id_new(now), ERR_OK);
        ck_assert(id_valid(now));
        ck_assert(strcmp(before, now) != 0);
        ck_assert_int_eq(now[12], '7');
        ck_assert_int_le(strncmp(before, now, 12), 0);
        memcpy(before, now, sizeof(now));
    }
    ck_assert(!id_valid("xyz"));
}
END_TEST

START_TEST(digest_and_comparison)
{
    uint8_t digest[SHA256_BYTES];
    struct arena a;
    arena_init(&a, 1024);
    ck_assert_int_eq(digest_sha256(bytes_text("abc"), digest), ERR_OK);
    ck_assert_str_eq(text_hex(&a, bytes_of(digest, sizeof(digest))),
                     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    ck_assert_int_eq(
        digest_hmac_sha256(bytes_text("Jefe"), bytes_text("what do ya want for nothing?"), digest),
        ERR_OK);
    ck_assert_str_eq(text_hex(&a, bytes_of(digest, sizeof(digest))),
                     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    ck_assert(secret_equal("abc", "abc", 3));
    ck_assert(!secret_equal("abc", "abd", 3));
    arena_done(&a);
}
END_TEST

START_TEST(private_files_must_be_private)
{
    char folder[] = "/tmp/muster-test-XXXXXX", path[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/key", folder);
    ck_assert_int_eq(file_store(path, bytes_text("secret"), 0600), ERR_OK);
    struct buf b;
    buf_init(&b, 100);
    ck_assert_int_eq(file_load_private(path, &b), ERR_OK);
    ck_assert_str_eq(buf_text(&b), "secret");
    buf_done(&b);
    for (unsigned mode = 0; mode < 2; mode++) {
        chmod(path, mode ? 0640 : 0604);
        buf_init(&b, 100);
        ck_assert_int_eq(file_load_private(path, &b), ERR_DENIED);
        buf_done(&b);
    }
    buf_init(&b, 3);
    ck_assert_int_eq(file_load(path, &b), ERR_INVALID);
    buf_done(&b);
    unlink(path);
    rmdir(folder);
}
END_TEST

struct crowd {
    struct gate gate;
    atomic_int inside, most, turned_away;
};

static void *visit(void *arg)
{
    struct crowd *c = arg;
    if (gate_enter(&c->gate, 2000)) {
        atomic_fetch_add(&c->turned_away, 1);
        return NULL;
    }
    int now = atomic_fetch_add(&c->inside, 1) + 1;
    int most = atomic_load(&c->most);
    while (now > most && !atomic_compare_exchange_weak(&c->most, &most, now))
        ;
    usleep(2000);
    atomic_fetch_sub(&c->inside, 1);
    gate_leave(&c->gate);
    return NULL;
}

START_TEST(the_gate_bounds_both_inside_and_queue)
{
    enum { THREADS = 32, INSIDE = 3 };
    struct crowd c = {.most = 0};
    pthread_t threads[THREADS];
    ck_assert_int_eq(gate_init(&c.gate, INSIDE, 8), ERR_OK);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, visit, &c);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_le(atomic_load(&c.most), INSIDE);
    ck_assert_int_ge(atomic_load(&c.most), 1);
    gate_done(&c.gate);
    ck_assert_int_eq(gate_init(&c.gate, 1, 1), ERR_OK);
    ck_assert_int_eq(gate_enter(&c.gate, 0), ERR_OK);
    ck_assert_int_eq(gate_enter(&c.gate, 20), ERR_UNAVAILABLE);
    gate_leave(&c.gate);
    gate_done(&c.gate);
}
END_TEST

START_TEST(new_limits_hold_at_once)
{
    struct gate g;
    struct gate_state s;
    ck_assert_int_eq(gate_init(&g, 1, 1), ERR_OK);
    ck_assert_int_eq(gate_enter(&g, 0), ERR_OK);
    gate_limit(&g, 2, 5);
    ck_assert_int_eq(gate_enter(&g, 0), ERR_OK);
    gate_limit(&g, 1, 5);
    gate_leave(&g);
    ck_assert_int_eq(gate_enter(&g, 0), ERR_UNAVAILABLE); /* one is inside still */
    gate_look(&g, &s);
    ck_assert(s.inside == 1 && s.waiting == 0 && s.max_inside == 1 && s.max_waiting == 5);
    gate_done(&g);

    struct source_limit *l = NULL;
    ck_assert_int_eq(source_limit_new(1, 3, &l), ERR_OK);
    ck_assert(source_limit_take(l, "a", 1000));
    source_limit_change(l, 1, 1);
    ck_assert(source_limit_take(l, "a", 1000));
    ck_assert(!source_limit_take(l, "a", 1000));
    source_limit_change(l, 1000, 10);
    for (int i = 0; i < 10; i++)
        ck_assert(source_limit_take(l, "a", 1001000));
    ck_assert(!source_limit_take(l, "a", 1001000));
    source_limit_free(l);
}
END_TEST

START_TEST(histograms_count_up_to_their_bounds)
{
    struct histogram h = {.scale = &histogram_size};
    static const int64_t values[] = {-5, 0, 1, 2, 3, 64, 65, 1000};
    int64_t sum = 0;
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        histogram_observe(&h, values[i]);
        sum += values[i] > 0 ? values[i] : 0;
    }
    static const uint64_t expected[] = {3, 1, 1, 0, 0, 0, 1, 2};
    for (unsigned i = 0; i < ARRAY_LEN(expected); i++)
        ck_assert_uint_eq(histogram_bucket(&h, i), expected[i]);
    ck_assert_int_eq((int64_t)histogram_sum(&h), sum);
}
END_TEST

START_TEST(log_levels_have_names)
{
    enum log_level level = LOG_INFO;
    ck_assert_int_eq(log_level_parse("debug", &level), ERR_OK);
    ck_assert_int_eq((int)level, LOG_DEBUG);
    ck_assert_int_eq(log_level_parse("error", &level), ERR_OK);
    ck_assert_int_eq((int)level, LOG_ERROR);
    ck_assert_int_eq(log_level_parse("Error", &level), ERR_INVALID);
    ck_assert_int_eq(log_level_parse("", &level), ERR_INVALID);
    ck_assert_int_eq((int)level, LOG_ERROR);
}
END_TEST

START_TEST(deadlines_are_of_the_clock_that_never_steps)
{
    static const int64_t after_us[] = {0, 1, 999999, 1000000, 2500000, INT64_C(90) * 1000000};
    for (size_t i = 0; i < ARRAY_LEN(after_us); i++) {
        int64_t before_us = clock_mono_us();
        struct timespec at = clock_deadline(after_us[i]);
        int64_t at_us = (int64_t)at.tv_sec * 1000000 + at.tv_nsec / 1000;
        ck_assert(at.tv_nsec >= 0 && at.tv_nsec < 1000000000);
        ck_assert_int_ge(at_us, before_us + after_us[i]);
        ck_assert_int_le(at_us, clock_mono_us() + after_us[i]);
    }
}
END_TEST

SUITE("base", arena_is_bounded_and_zeroed, buf_drops_what_does_not_fit_whole,
      base64_vectors_both_ways, base64_takes_white_space_and_nothing_else,
      base64_round_trips_random_bytes, text_utf8_refuses_what_rfc_3629_refuses,
      text_numbers_and_durations, text_url_decodes_in_place, json_escapes_and_replaces,
      ids_are_unique_and_in_time_order, digest_and_comparison, private_files_must_be_private,
      the_gate_bounds_both_inside_and_queue, new_limits_hold_at_once,
      histograms_count_up_to_their_bounds, log_levels_have_names,
      deadlines_are_of_the_clock_that_never_steps)
