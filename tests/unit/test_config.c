#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "ops/config.h"
#include "ops/credential.h"
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

/* A folder of credentials as systemd makes it, and the environment that names it. */
static void credentials_make(char folder[64])
{
    strcpy(folder, "/tmp/muster-creds-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(setenv("CREDENTIALS_DIRECTORY", folder, 1), 0);
}

static void credentials_remove(const char *folder)
{
    static const char *const names[] = {"file", "database-password"};
    char path[256];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    ck_assert_int_eq(rmdir(folder), 0);
}

static void file_make(const char *folder, const char *name, const char *text, unsigned mode)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    ck_assert_int_eq(file_store(path, bytes_text(text), 0600), ERR_OK);
    ck_assert_int_eq(chmod(path, mode), 0);
}

static void secret_is(const struct config *c, const char *expected, const char *from)
{
    struct buf b;
    const char *where = "";
    ck_assert_int_eq(credential_load(CREDENTIAL_DATABASE_PASSWORD, c, &b, &where), ERR_OK);
    ck_assert_str_eq(buf_text(&b), expected);
    ck_assert_msg(strstr(where, from) != NULL, "%s", where);
    credential_done(&b);
}

static enum err secret_error(const struct config *c)
{
    struct buf b;
    enum err e = credential_load(CREDENTIAL_DATABASE_PASSWORD, c, &b, NULL);
    credential_done(&b);
    return e;
}

START_TEST(secrets_come_in_order)
{
    char folder[64], text[256], message[CONFIG_MESSAGE_BYTES] = "";
    struct config *c = NULL;
    credentials_make(folder);
    file_make(folder, "file", "from-file\nmore\n", 0600);
    snprintf(text, sizeof(text), NEEDED "[database]\npassword_file=%s/file\n", folder);
    ck_assert_int_eq(load(text, &c, message), ERR_OK);
    secret_is(c, "from-file", "/file");
    file_make(folder, "database-password", "from-systemd\n", 0440);
    secret_is(c, "from-systemd", "credential:database-password");
    ck_assert_int_eq(setenv("MUSTER_DATABASE_PASSWORD", "from-environment", 1), 0);
    secret_is(c, "from-environment", "MUSTER_DATABASE_PASSWORD");
    ck_assert_int_eq(unsetenv("MUSTER_DATABASE_PASSWORD"), 0);
    file_make(folder, "database-password", "seen by all", 0644);
    ck_assert_int_eq(secret_error(c), ERR_DENIED);
    ck_assert_int_eq(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    secret_is(c, "from-file", "/file");
    file_make(folder, "file", "group", 0640);
    ck_assert_int_eq(secret_error(c), ERR_DENIED);
    struct buf token;
    ck_assert_int_eq(setenv("MUSTER_METRICS_TOKEN", "fifteen-bytes--", 1), 0);
    ck_assert_int_eq(credential_load(CREDENTIAL_METRICS_TOKEN, c, &token, NULL), ERR_INVALID);
    credential_done(&token);
    ck_assert_int_eq(setenv("MUSTER_METRICS_TOKEN", "sixteen-bytes---", 1), 0);
    ck_assert_int_eq(credential_load(CREDENTIAL_METRICS_TOKEN, c, &token, NULL), ERR_OK);
    credential_done(&token);
    credentials_remove(folder);
    config_free(c);
}
END_TEST

START_TEST(a_value_may_name_a_credential)
{
    char folder[64], expected[128], message[CONFIG_MESSAGE_BYTES] = "";
    struct config *c = NULL;
    credentials_make(folder);
    static const char *const bad[] = {"credential:", "credential:../key", "credential:a/b",
                                      "credential:.key"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char text[256];
        snprintf(text, sizeof(text), "[tls]\ncertificate=a\nkey=%s\n[ca]\ndirectory=c\n", bad[i]);
        ck_assert_int_eq(load(text, &c, message), ERR_INVALID);
        ck_assert_msg(strstr(message, "[tls] key") != NULL, "%s", message);
    }
    const char *good = "[tls]\ncertificate=a\nkey=credential:tls.key\n[ca]\ndirectory=c\n";
    ck_assert_int_eq(load(good, &c, message), ERR_OK);
    snprintf(expected, sizeof(expected), "%s/tls.key", folder);
    ck_assert_str_eq(c->tls_key, expected);
    config_free(c);
    c = NULL;
    ck_assert_int_eq(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    ck_assert_int_eq(load(good, &c, message), ERR_INVALID);
    credentials_remove(folder);
}
END_TEST

START_TEST(what_differs_and_what_a_reload_changes)
{
    char message[CONFIG_MESSAGE_BYTES] = "";
    struct config *a = NULL, *b = NULL;
    struct config_difference d;
    size_t index = 0;
    ck_assert_int_eq(load(NEEDED, &a, message), ERR_OK);
    ck_assert_int_eq(
        load(NEEDED "[listen]\ndevice_port=9\nmax_inside=5\n[log]\nlevel=warn\n", &b, message),
        ERR_OK);
    ck_assert(config_differ(a, b, &index, &d));
    ck_assert_str_eq(d.key, "listen.device_port");
    ck_assert(!d.live);
    ck_assert(config_differ(a, b, &index, &d));
    ck_assert_str_eq(d.key, "listen.max_inside");
    ck_assert(d.live);
    ck_assert(config_differ(a, b, &index, &d));
    ck_assert_str_eq(d.key, "log.level");
    ck_assert(d.live);
    ck_assert(!config_differ(a, b, &index, &d));
    index = 0;
    ck_assert(!config_differ(a, a, &index, &d));
    config_free(a);
    config_free(b);
}
END_TEST

SUITE("config", defaults_and_values, what_is_wrong_is_fatal_and_named, a_missing_file,
      secrets_come_in_order, a_value_may_name_a_credential, what_differs_and_what_a_reload_changes)
