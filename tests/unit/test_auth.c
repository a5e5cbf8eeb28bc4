#include <string.h>

#include "base/cleanup.h"
#include "proto/auth.h"
#include "suite.h"

static enum err parse(struct arena *a, const char *header, struct device_auth *auth)
{
    struct fault fault = {0};
    enum err e = auth_parse(a, header, auth, &fault);
    if (e)
        ck_assert_int_eq(fault.code, FAULT_AUTH_MALFORMED);
    return e;
}

START_TEST(accepted_headers)
{
    static const struct {
        const char *header, *serial, *token;
    } cases[] = {
        {"Basic U04tMTptc3RfYWJj", "SN-1", "mst_abc"},
        {"basic  U04tMTptc3RfYWJj", "SN-1", "mst_abc"},
        {"Basic Om1zdF9hYmM=", NULL, "mst_abc"},
        {"Basic YWE6YmI6bXN0X2FiYw==", "aa:bb", "mst_abc"},
        {"Basic U04tMTptc3RfYWJjAC0tb3V0cHV0LWNhAA==", "SN-1", "mst_abc"},
        {"Bearer mst_abc", NULL, "mst_abc"},
        {"BEARER   mst_abc", NULL, "mst_abc"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a;
        struct device_auth auth = {0};
        arena_init(&a, 8192);
        ck_assert_msg(parse(&a, cases[i].header, &auth) == ERR_OK, "%s", cases[i].header);
        ck_assert_str_eq(auth.token, cases[i].token);
        if (cases[i].serial)
            ck_assert_str_eq(auth.serial, cases[i].serial);
        else
            ck_assert_ptr_null(auth.serial);
        arena_done(&a);
    }
}
END_TEST

START_TEST(refused_headers)
{
    static const char *const cases[] = {"",
                                        "Basic",
                                        "Basic ",
                                        "Basic !!!",
                                        "Basic bm9jb2xvbg==",
                                        "Basic YTo=",
                                        "Bearer",
                                        "Bearer ",
                                        "Bearer a b",
                                        "Digest x",
                                        "Token abc",
                                        "BasicU04tMTptc3RfYWJj",
                                        "Basic YQphOm1zdA=="};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a;
        struct device_auth auth = {0};
        arena_init(&a, 8192);
        ck_assert_msg(parse(&a, cases[i], &auth) == ERR_DENIED, "%s", cases[i]);
        ck_assert_ptr_null(auth.token);
        arena_done(&a);
    }
}
END_TEST

START_TEST(a_header_too_long)
{
    char header[AUTH_MAX_HEADER_BYTES + 20];
    struct arena a;
    struct device_auth auth = {0};
    memset(header, 'a', sizeof(header));
    memcpy(header, "Bearer ", 7);
    header[sizeof(header) - 1] = '\0';
    arena_init(&a, 8192);
    ck_assert_int_eq(parse(&a, header, &auth), ERR_DENIED);
    arena_done(&a);
}
END_TEST

SUITE("auth", accepted_headers, refused_headers, a_header_too_long)
