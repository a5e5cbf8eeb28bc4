#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "ops/config.h"
#include "suite.h"

#define NEEDED "[tls]\ncertificate=a\nkey=b\n[ca]\ndirectory=c\n"

static enum err load(const char *text, struct config **ret, char *message)
{
    char path[] = "/tmp/muster-config-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    enum err e = config_load(path, ret, message);
    unlink(path);
    return e;
}

START_TEST(defaults_and_values)
{
    char message[CONFIG_MESSAGE_BYTES] = "";
    struct config *c = NULL;
    ck_assert_msg(load(NEEDED "[listen]\ndevice_port = 9000\n", &c, message) == ERR_OK, "%s",
                  message);
    ck_assert_int_eq(c->listen_device_port, 9000);
    ck_assert_int_eq(c->listen_admin_port, 8444);
    ck_assert_str_eq(c->database_name, "muster");
    ck_assert_ptr_null(config_optional(c->database_host));
    config_free(c);
}
END_TEST

START_TEST(what_is_wrong_is_fatal_and_named)
{
    char long_value[400] = NEEDED "[database]\nhost=";
    memset(long_value + strlen(long_value), 'x', 300);
    const struct {
        const char *text, *says;
    } cases[] = {
        {NEEDED "[listen]\ndevice_prot=1\n", "no key [listen] device_prot"},
        {NEEDED "[nothing]\na=1\n", "no key [nothing] a"},
        {NEEDED "[listen]\ndevice_port=70000\n", "0 to 65535"},
        {NEEDED "[listen]\ndevice_port=abc\n", "number"},
        {NEEDED "[tls]\nkey=z\n", "twice"},
        {"[tls]\ncertificate=a\nkey=b\n", "[ca] directory must be given"},
        {NEEDED "nonsense\n", "line"},
        {long_value, "line"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char message[CONFIG_MESSAGE_BYTES] = "";
        struct config *c = NULL;
        ck_assert_msg(load(cases[i].text, &c, message) == ERR_INVALID, "case %zu", i);
        ck_assert_ptr_null(c);
        ck_assert_msg(strstr(message, cases[i].says) != NULL, "%s", message);
    }
}
END_TEST

START_TEST(a_missing_file)
{
    char message[CONFIG_MESSAGE_BYTES] = "";
    struct config *c = NULL;
    ck_assert_int_eq(config_load("/nonexistent/muster.conf", &c, message), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(message, "cannot be read"));
}
END_TEST

SUITE("config", defaults_and_values, what_is_wrong_is_fatal_and_named, a_missing_file)
