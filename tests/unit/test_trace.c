#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/trace.h"
#include "suite.h"

#define ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"
#define ZERO8 "00000000"

START_TEST(what_is_accepted)
{
    const struct {
        const char *header;
        bool sampled;
    } cases[] = {
        {"00-" ID "-" SPAN "-01", true},
        {"00-" ID "-" SPAN "-00", false},
        {"00-" ID "-" SPAN "-ff", true}, /* unknown flags are not ours to judge */
        {"00-" ID "-" SPAN "-fe", false},
        {"cc-" ID "-" SPAN "-01", true},
        {"cc-" ID "-" SPAN "-01-what-the-future-will-be-like", true},
        {"cc-" ID "-" SPAN "-01-", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct trace t;
        ck_assert_msg(trace_parse(cases[i].header, &t) == ERR_OK, "%s", cases[i].header);
        ck_assert_str_eq(t.id, ID);
        ck_assert_str_eq(t.parent, SPAN);
        ck_assert_str_eq(t.span, "");
        ck_assert_msg(t.sampled == cases[i].sampled, "%s", cases[i].header);
    }
}
END_TEST

START_TEST(what_is_ignored)
{
    static const char *const cases[] = {
        "",
        "00",
        "00-" ID "-" SPAN,
        "00-" ID "-" SPAN "-0",
        "00-" ID "-" SPAN "-011",
        "00-" ID "-" SPAN "-01-",
        "00-" ID "-" SPAN "-01-more",
        "cc-" ID "-" SPAN "-01.more",
        "ff-" ID "-" SPAN "-01",
        "0g-" ID "-" SPAN "-01",
        " 00-" ID "-" SPAN "-01",
        "00-" ZERO8 ZERO8 ZERO8 ZERO8 "-" SPAN "-01",
        "00-" ID "-" ZERO8 ZERO8 "-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01",
        "00-" ID "-00F067AA0BA902B7-01",
        "00-" ID "-" SPAN "-0G",
        "00_" ID "-" SPAN "-01",
        "00-" ID "_" SPAN "-01",
        "00-" ID "-" SPAN "_01",
        "00-" ID "a" SPAN "-01",
        "00-" ID "-" SPAN "-01 ",
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct trace t = {.id = "kept"};
        ck_assert_msg(trace_parse(cases[i], &t) == ERR_INVALID, "%s", cases[i]);
        ck_assert_str_eq(t.id, "kept");
    }
}
END_TEST

START_TEST(a_new_span_goes_on)
{
    struct trace a, b;
    char header[TRACE_PARENT_CHARS + 1];
    ck_assert_int_eq(trace_continue("00-" ID "-" SPAN "-01", &a), ERR_OK);
    ck_assert_int_eq(trace_continue("cc-" ID "-" SPAN "-03-x", &b), ERR_OK);
    ck_assert_str_ne(a.span, b.span);
    ck_assert_str_ne(a.span, SPAN);
    trace_format(&b, header);
    struct trace again;
    ck_assert_int_eq(trace_parse(header, &again), ERR_OK);
    ck_assert_str_eq(again.id, ID);
    ck_assert_str_eq(again.parent, b.span);
    ck_assert_msg(strncmp(header, "00-", 3) == 0 && strcmp(header + 53, "01") == 0, "%s", header);
    ck_assert_int_eq(trace_continue("nonsense", &a), ERR_INVALID);
}
END_TEST

SUITE("trace", what_is_accepted, what_is_ignored, a_new_span_goes_on)
