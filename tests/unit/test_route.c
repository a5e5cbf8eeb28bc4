#include <string.h>

#include "base/cleanup.h"
#include "proto/route.h"
#include "suite.h"

static enum err handle(struct service *service, struct exchange *x)
{
    (void)service;
    exchange_reply(x, 200, "text/plain", bytes_text("ok"));
    return ERR_OK;
}

static enum err broken(struct service *service, struct exchange *x)
{
    (void)service;
    (void)x;
    return ERR_NO_MEMORY;
}

static const struct route rows[] = {
    {HTTP_GET, "/a", NULL, 0, 0, handle, NULL},
    {HTTP_POST, "/a", "application/json", 10, 0, handle, NULL},
    {HTTP_GET, "/a/{}/b/{}", NULL, 0, 0, handle, NULL},
    {HTTP_GET, "/t/{}:verb", NULL, 0, 0, broken, NULL},
};
static const struct route_table table = {.rows = rows, .count = ARRAY_LEN(rows)};

static enum err find(struct arena *a, enum http_method method, const char *path, struct exchange *x,
                     const struct route **row)
{
    memset(x, 0, sizeof(*x));
    x->arena = a;
    x->method = method;
    x->path = path;
    return route_find(&table, x, row);
}

START_TEST(paths_and_their_arguments)
{
    struct arena a;
    struct exchange x;
    const struct route *row = NULL;
    arena_init(&a, 65536);
    ck_assert_int_eq(find(&a, HTTP_GET, "/a", &x, &row), ERR_OK);
    ck_assert_ptr_eq(row, &rows[0]);
    ck_assert_int_eq(find(&a, HTTP_GET, "/a/x%20y/b/z", &x, &row), ERR_OK);
    ck_assert_str_eq(x.args[0], "x y");
    ck_assert_str_eq(x.args[1], "z");
    ck_assert_int_eq(find(&a, HTTP_GET, "/t/abc:verb", &x, &row), ERR_OK);
    ck_assert_str_eq(x.args[0], "abc");
    static const char *const unknown[] = {"",           "/",       "/A",         "/a/",
                                          "/a/x/b/",    "/a//b/c", "/a/x/b/y/z", "/a/%00/b/c",
                                          "/a/%zz/b/c", "/t/abc"};
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
        ck_assert_msg(find(&a, HTTP_GET, unknown[i], &x, &row) == ERR_DENIED, "%s", unknown[i]);
        ck_assert_int_eq(x.fault.code, FAULT_REQUEST_NOT_FOUND);
    }
    arena_done(&a);
}
END_TEST

START_TEST(the_wrong_method_is_told_the_right_ones)
{
    struct arena a;
    struct exchange x;
    const struct route *row = NULL;
    arena_init(&a, 65536);
    ck_assert_int_eq(find(&a, HTTP_DELETE, "/a", &x, &row), ERR_DENIED);
    ck_assert_int_eq(x.fault.code, FAULT_REQUEST_METHOD);
    ck_assert_str_eq(x.reply_headers[0].name, "Allow");
    ck_assert_str_eq(x.reply_headers[0].value, "GET, POST");
    arena_done(&a);
}
END_TEST

START_TEST(type_and_length_are_judged_before_the_body)
{
    struct arena a;
    struct exchange x;
    const struct route *row = NULL;
    arena_init(&a, 65536);
    ck_assert_int_eq(find(&a, HTTP_POST, "/a", &x, &row), ERR_OK);
    ck_assert_int_eq(route_check(row, &x, 5), ERR_DENIED);
    ck_assert_int_eq(x.fault.code, FAULT_REQUEST_TYPE);
    x.headers[x.header_count++] = (struct pair){"content-type", "Application/JSON; charset=utf-8"};
    ck_assert_int_eq(route_check(row, &x, 5), ERR_OK);
    ck_assert_int_eq(route_check(row, &x, -1), ERR_OK);
    ck_assert_int_eq(route_check(row, &x, 11), ERR_DENIED);
    ck_assert_int_eq(x.fault.code, FAULT_REQUEST_TOO_LARGE);
    arena_done(&a);
}
END_TEST

START_TEST(a_handler_that_fails_still_answers)
{
    struct arena a;
    struct exchange x;
    const struct route *row = NULL;
    arena_init(&a, 65536);
    ck_assert_int_eq(find(&a, HTTP_GET, "/t/x:verb", &x, &row), ERR_OK);
    route_run(row, NULL, &x);
    ck_assert_int_eq(x.status, 500);
    ck_assert_str_eq(x.reply_type, "application/problem+json");
    ck_assert_ptr_nonnull(memmem(x.reply.data, x.reply.len, "server.internal", 15));
    arena_done(&a);
}
END_TEST

SUITE("route", paths_and_their_arguments, the_wrong_method_is_told_the_right_ones,
      type_and_length_are_judged_before_the_body, a_handler_that_fails_still_answers)
