#include "ops/credential.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/secret.h"
#include "ops/config.h"

static const char prefix[] = "credential:";

static const struct {
    const char *variable;
    const char *name;   /* of the credential: "credential:..." */
    size_t file_offset; /* of the configuration's path of a file */
    size_t min_bytes;
} sources[] = {
    [CREDENTIAL_DATABASE_PASSWORD] = {"MUSTER_DATABASE_PASSWORD", "credential:database-password",
                                      offsetof(struct config, database_password_file), 0},
    [CREDENTIAL_METRICS_TOKEN] = {"MUSTER_METRICS_TOKEN", "credential:metrics-token",
                                  offsetof(struct config, admin_metrics_token_file),
                                  CREDENTIAL_MIN_TOKEN_BYTES},
    [CREDENTIAL_HOOK_SECRET] = {"MUSTER_HOOK_SECRET", "credential:hook-secret",
                                offsetof(struct config, hook_secret_file),
                                CREDENTIAL_MIN_TOKEN_BYTES},
    [CREDENTIAL_CA_PASSPHRASE] = {"MUSTER_CA_PASSPHRASE", "credential:ca-passphrase",
                                  offsetof(struct config, ca_passphrase_file), 8},
    [CREDENTIAL_PKCS11_PIN] = {"MUSTER_PKCS11_PIN", "credential:pkcs11-pin",
                               offsetof(struct config, ca_pkcs11_pin_file), 4},
};

const char *credential_variable(enum credential which)
{
    return sources[which].variable;
}

bool credential_is_named(const char *value)
{
    return strncmp(value, prefix, strlen(prefix)) == 0;
}

enum err credential_path(const char *value, char **ret_path)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    const char *name = value + strlen(prefix);
    if (!folder || folder[0] != '/' || name[0] == '\0' || name[0] == '.' || strchr(name, '/'))
        return ERR_INVALID;
    char *path = NULL;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return ERR_NO_MEMORY;
    *ret_path = path;
    return ERR_OK;
}

void credential_done(struct buf *b)
{
    if (b->data)
        secret_cleanse(b->data, b->len);
    buf_done(b);
}

/* Where systemd has no such credential, the next source is asked. */
static bool passed_on(const char *name, char **ret_path)
{
    char *path = NULL;
    if (credential_path(name, &path))
        return false;
    if (access(path, F_OK) != 0) {
        free(path);
        return false;
    }
    *ret_path = path;
    return true;
}

static enum err source_read(enum credential which, const struct config *c, struct buf *ret,
                            const char **ret_where)
{
    _cleanup_(freep) char *path = NULL;
    const char *text = getenv(sources[which].variable);
    const char *file = *(char *const *)((const char *)c + sources[which].file_offset);
    if (text && text[0] != '\0') {
        *ret_where = sources[which].variable;
        buf_add_text(ret, text);
        return ret->overflow ? ERR_INVALID : ERR_OK;
    }
    if (passed_on(sources[which].name, &path)) {
        *ret_where = sources[which].name;
        return file_load_private(path, ret);
    }
    if (file[0] == '\0')
        return ERR_OK;
    *ret_where = file;
    return file_load_private(file, ret);
}

enum err credential_load(enum credential which, const struct config *c, struct buf *ret,
                         const char **ret_where)
{
    const char *where = "";
    buf_init(ret, CREDENTIAL_MAX_BYTES);
    enum err e = source_read(which, c, ret, &where);
    if (ret_where)
        *ret_where = where;
    if (e || ret->len == 0)
        return e;
    ret->len = strcspn(buf_text(ret), "\r\n");
    ret->data[ret->len] = '\0';
    return ret->len < sources[which].min_bytes ? ERR_INVALID : ERR_OK;
}
