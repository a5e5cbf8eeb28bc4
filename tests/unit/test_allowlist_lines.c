#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "proto/admin/allowlist_lines.h"

#define PIN "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

static const struct serial_rule keep = {SERIAL_CASE_KEEP, false};
static const struct serial_rule folded = {SERIAL_CASE_UPPER, true};

struct outcome {
    struct allowlist_line line;
    char reason[ALLOWLIST_REASON_BYTES];
};

static enum err parse(enum allowlist_format format, const struct serial_rule *rule,
                      const char *text, size_t number, struct outcome *ret)
{
    ret->reason[0] = '\0';
    return allowlist_line_parse(format, rule, text, strlen(text), number, &ret->line, ret->reason);
}

struct good {
    enum allowlist_format format;
    const char *text;
    const char *serial;
    bool pinned;
    const char *batch;
};

static const struct good goods[] = {
    {ALLOWLIST_CSV, "SN-0001", "SN-0001", false, ""},
    {ALLOWLIST_CSV, "SN-0001\r", "SN-0001", false, ""},
    {ALLOWLIST_CSV, " \tSN-0001 \t", "SN-0001", false, ""},
    {ALLOWLIST_CSV, "SN-0001," PIN, "SN-0001", true, ""},
    {ALLOWLIST_CSV, "SN-0001, " PIN " , lot 7", "SN-0001", true, "lot 7"},
    {ALLOWLIST_CSV, "SN-0001,,lot 7", "SN-0001", false, "lot 7"},
    {ALLOWLIST_CSV, "SN-0001,,", "SN-0001", false, ""},
    {ALLOWLIST_CSV, "\"SN-0001\",\"" PIN "\",\" lot 7\"", "SN-0001", true, " lot 7"},
    {ALLOWLIST_CSV, "a.B_c:d-9", "a.B_c:d-9", false, ""},
    {ALLOWLIST_CSV, "SN-1,,caf\xc3\xa9", "SN-1", false, "caf\xc3\xa9"},
    {ALLOWLIST_JSON, "{\"serial\":\"SN-0001\"}", "SN-0001", false, ""},
    {ALLOWLIST_JSON, " {\"serial\" : \"SN-0001\"}\r", "SN-0001", false, ""},
    {ALLOWLIST_JSON, "{\"batch\":\"lot 7\",\"spki_pin\":\"" PIN "\",\"serial\":\"SN-1\"}", "SN-1",
     true, "lot 7"},
    {ALLOWLIST_JSON, "{\"serial\":\"SN-1\",\"spki_pin\":null,\"batch\":null}", "SN-1", false, ""},
    {ALLOWLIST_JSON, "{\"serial\":\"SN-1\",\"spki_pin\":\"\"}", "SN-1", false, ""},
    {ALLOWLIST_JSON, "{\"serial\":\"\\u0053N-1\",\"batch\":\"a\\\\b\"}", "SN-1", false, "a\\b"},
};

START_TEST(takes)
{
    const struct good *g = &goods[_i];
    struct outcome o;
    ck_assert_int_eq(parse(g->format, &keep, g->text, 2, &o), ERR_OK);
    ck_assert(!o.line.skip);
    ck_assert_str_eq(o.line.serial.given, g->serial);
    ck_assert_str_eq(o.line.serial.canonical, g->serial);
    ck_assert_str_eq(o.line.shown, g->serial);
    ck_assert_int_eq(o.line.pinned, g->pinned);
    ck_assert_str_eq(o.line.batch, g->batch);
}
END_TEST

START_TEST(pin_is_decoded)
{
    struct outcome o;
    ck_assert_int_eq(parse(ALLOWLIST_CSV, &keep, "SN-1," PIN, 1, &o), ERR_OK);
    ck_assert_uint_eq(o.line.pin[0], 0x9f);
    ck_assert_uint_eq(o.line.pin[1], 0x86);
    ck_assert_uint_eq(o.line.pin[SHA256_BYTES - 1], 0x08);
}
END_TEST

START_TEST(pin_takes_either_case)
{
    struct outcome lower, upper;
    ck_assert_int_eq(parse(ALLOWLIST_CSV, &keep,
                           "S,abcdef0000000000000000000000000000000000000000000000000000000000", 1,
                           &lower),
                     ERR_OK);
    ck_assert_int_eq(parse(ALLOWLIST_CSV, &keep,
                           "S,ABCDEF0000000000000000000000000000000000000000000000000000000000", 1,
                           &upper),
                     ERR_OK);
    ck_assert_mem_eq(lower.line.pin, upper.line.pin, SHA256_BYTES);
}
END_TEST

START_TEST(rule_of_the_product_folds)
{
    struct outcome o;
    ck_assert_int_eq(parse(ALLOWLIST_CSV, &folded, "ab-cd:01", 1, &o), ERR_OK);
    ck_assert_str_eq(o.line.serial.given, "ab-cd:01");
    ck_assert_str_eq(o.line.serial.canonical, "ABCD01");
    ck_assert_int_eq(parse(ALLOWLIST_CSV, &folded, "-:._", 1, &o), ERR_INVALID);
    ck_assert_int_eq(parse(ALLOWLIST_CSV, &keep, "-:._", 1, &o), ERR_OK);
}
END_TEST

struct skipped {
    enum allowlist_format format;
    const char *text;
    size_t number;
};

static const struct skipped skips[] = {
    {ALLOWLIST_CSV, "", 2},
    {ALLOWLIST_CSV, "\r", 2},
    {ALLOWLIST_CSV, " \t", 2},
    {ALLOWLIST_CSV, "# a comment, with commas, more, and more", 2},
    {ALLOWLIST_CSV, "  # indented", 2},
    {ALLOWLIST_CSV, "serial", 1},
    {ALLOWLIST_CSV, "Serial,SPKI_pin,Batch\r", 1},
    {ALLOWLIST_CSV, "\"serial\",\"pin\"", 1},
    {ALLOWLIST_JSON, "", 2},
    {ALLOWLIST_JSON, " \r", 2},
};

START_TEST(skips_what_is_no_row)
{
    struct outcome o;
    ck_assert_int_eq(parse(skips[_i].format, &keep, skips[_i].text, skips[_i].number, &o), ERR_OK);
    ck_assert(o.line.skip);
}
END_TEST

START_TEST(header_stands_in_the_first_line_only)
{
    struct outcome o;
    ck_assert_int_eq(parse(ALLOWLIST_CSV, &keep, "serial", 2, &o), ERR_OK);
    ck_assert(!o.line.skip);
    ck_assert_str_eq(o.line.serial.given, "serial");
    ck_assert_int_eq(parse(ALLOWLIST_CSV, &keep, "serial-1", 1, &o), ERR_OK);
    ck_assert(!o.line.skip);
}
END_TEST

struct bad {
    enum allowlist_format format;
    const char *text;
    const char *shown;
    const char *why; /* part of the reason */
};

static const struct bad bads[] = {
    {ALLOWLIST_CSV, "SN 1", "SN 1", "serial"},
    {ALLOWLIST_CSV, "SN/1", "SN/1", "serial"},
    {ALLOWLIST_CSV, "\xc3\xa9", "??", "serial"},
    {ALLOWLIST_CSV, "\"\"", "", "serial"},
    {ALLOWLIST_CSV, ",,lot", "", "serial"},
    {ALLOWLIST_CSV, "SN\"1\"", "SN\"1\"", "serial"},
    {ALLOWLIST_CSV, "SN-1,abcd", "SN-1", "pin"},
    {ALLOWLIST_CSV, "SN-1," PIN "00", "SN-1", "pin"},
    {ALLOWLIST_CSV, "SN-1,lot 7", "SN-1", "pin"},
    {ALLOWLIST_CSV, "SN-1,,a\x01", "SN-1", "batch"},
    {ALLOWLIST_CSV, "SN-1,,\xff", "SN-1", "batch"},
    {ALLOWLIST_CSV, "SN-1,,a,b", "", "three fields"},
    {ALLOWLIST_JSON, "SN-1", "", "JSON object"},
    {ALLOWLIST_JSON, "[\"SN-1\"]", "", "JSON object"},
    {ALLOWLIST_JSON, "\"SN-1\"", "", "JSON object"},
    {ALLOWLIST_JSON, "{\"serial\":\"SN-1\"", "", "JSON object"},
    {ALLOWLIST_JSON, "{\"serial\":\"SN-1\"} x", "", "JSON object"},
    {ALLOWLIST_JSON, "{\"serial\":\"a\",\"serial\":\"b\"}", "", "JSON object"},
    {ALLOWLIST_JSON, "{\"serial\":\"a\\u0000b\"}", "", "JSON object"},
    {ALLOWLIST_JSON, "{\"serial\":\"SN-1\",\"pin\":\"" PIN "\"}", "", "member"},
    {ALLOWLIST_JSON, "{\"serial\":17}", "", "string"},
    {ALLOWLIST_JSON, "{\"batch\":\"lot\"}", "", "no serial"},
    {ALLOWLIST_JSON, "{\"serial\":null}", "", "no serial"},
    {ALLOWLIST_JSON, "{}", "", "no serial"},
    {ALLOWLIST_JSON, "{\"serial\":\"\"}", "", "serial"},
    {ALLOWLIST_JSON, "# no comments here", "", "JSON object"},
};

START_TEST(rejects_with_a_reason)
{
    const struct bad *b = &bads[_i];
    struct outcome o;
    ck_assert_int_eq(parse(b->format, &keep, b->text, 2, &o), ERR_INVALID);
    ck_assert_msg(strstr(o.reason, b->why) != NULL, "\"%s\" has no \"%s\"", o.reason, b->why);
    ck_assert_str_eq(o.line.shown, b->shown);
    ck_assert(!o.line.skip);
}
END_TEST

/* prefix and n times c, as one line of CSV. */
static enum err parse_long(const char *prefix, char c, size_t n, struct outcome *ret)
{
    char text[2 * ALLOWLIST_MAX_LINE_BYTES] = "";
    size_t len = strlen(prefix);
    memcpy(text, prefix, len);
    memset(text + len, c, n);
    ret->reason[0] = '\0';
    return allowlist_line_parse(ALLOWLIST_CSV, &keep, text, len + n, 2, &ret->line, ret->reason);
}

START_TEST(lengths_at_their_limits)
{
    struct outcome o;
    ck_assert_int_eq(parse_long("", 'S', SERIAL_MAX_CHARS, &o), ERR_OK);
    ck_assert_uint_eq(strlen(o.line.serial.given), SERIAL_MAX_CHARS);
    ck_assert_int_eq(parse_long("", 'S', SERIAL_MAX_CHARS + 1, &o), ERR_INVALID);
    ck_assert_uint_eq(strlen(o.line.shown), SERIAL_MAX_CHARS);
    ck_assert_int_eq(parse_long("SN-1,,", 'b', ALLOWLIST_MAX_BATCH_BYTES, &o), ERR_OK);
    ck_assert_uint_eq(strlen(o.line.batch), ALLOWLIST_MAX_BATCH_BYTES);
    ck_assert_int_eq(parse_long("SN-1,,", 'b', ALLOWLIST_MAX_BATCH_BYTES + 1, &o), ERR_INVALID);
    ck_assert_int_eq(parse_long("#", 'x', ALLOWLIST_MAX_LINE_BYTES - 1, &o), ERR_OK);
    ck_assert_int_eq(parse_long("#", 'x', ALLOWLIST_MAX_LINE_BYTES, &o), ERR_INVALID);
    ck_assert(strstr(o.reason, "longer") != NULL);
}
END_TEST

START_TEST(nul_is_refused_not_cut)
{
    struct outcome o;
    static const char text[] = "SN-1\0,x";
    ck_assert_int_eq(
        allowlist_line_parse(ALLOWLIST_CSV, &keep, text, sizeof(text) - 1, 1, &o.line, o.reason),
        ERR_INVALID);
    ck_assert(strstr(o.reason, "NUL") != NULL);
    ck_assert_str_eq(o.line.shown, "");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("allowlist_lines");
    TCase *t = tcase_create("all");
    tcase_add_loop_test(t, takes, 0, (int)(sizeof(goods) / sizeof(goods[0])));
    tcase_add_test(t, pin_is_decoded);
    tcase_add_test(t, pin_takes_either_case);
    tcase_add_test(t, rule_of_the_product_folds);
    tcase_add_loop_test(t, skips_what_is_no_row, 0, (int)(sizeof(skips) / sizeof(skips[0])));
    tcase_add_test(t, header_stands_in_the_first_line_only);
    tcase_add_loop_test(t, rejects_with_a_reason, 0, (int)(sizeof(bads) / sizeof(bads[0])));
    tcase_add_test(t, lengths_at_their_limits);
    tcase_add_test(t, nul_is_refused_not_cut);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
