#include "main/check.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>

#include "base/file.h"
#include "base/log.h"
#include "base/secret.h"
#include "http/address.h"
#include "http/tls.h"
#include "main/server.h"
#include "ops/credential.h"
#include "pki/chain.h"
#include "pki/key.h"

enum { MAX_FILE_BYTES = 256 * 1024 };

/* A check under way. */
struct check {
    const struct config *config;
    FILE *out;
    unsigned problems;
};

static void problem(struct check *k, const char *key, const char *value, const char *why)
{
    k->problems++;
    fprintf(k->out, "%s: %s%s%s\n", key, value, value[0] != '\0' ? " " : "", why);
}

static const char *reason(enum err e)
{
    if (e == ERR_DENIED)
        return "must be readable by its owner only (mode 0600)";
    return e == ERR_SYSTEM ? strerror(errno) : err_name(e);
}

static bool file_check(struct check *k, const char *key, const char *path, bool private)
{
    _cleanup_(buf_donep) struct buf content = {0};
    buf_init(&content, MAX_FILE_BYTES);
    enum err e = private ? file_load_private(path, &content) : file_load(path, &content);
    if (e)
        problem(k, key, path, reason(e));
    if (content.data)
        secret_cleanse(content.data, content.len);
    return !e;
}

static void tls_check(struct check *k)
{
    const struct config *c = k->config;
    struct tls_identity *identity = NULL;
    bool cert = file_check(k, "tls.certificate", c->tls_certificate, false);
    bool key = file_check(k, "tls.key", c->tls_key, true);
    if (cert && key && tls_identity_new(c->tls_certificate, c->tls_key, &identity))
        problem(k, "tls.certificate", c->tls_certificate,
                "and tls.key do not parse, or are not a pair");
    tls_identity_free(identity);
}

static void ca_check(struct check *k)
{
    const char *folder = k->config->ca_directory;
    char path[PATH_MAX];
    DIR *dir = opendir(folder);
    if (!dir) {
        problem(k, "ca.directory", folder, strerror(errno));
        return;
    }
    for (const struct dirent *d = readdir(dir); d; d = readdir(dir)) {
        size_t len = strlen(d->d_name);
        if (len < 5 || strcmp(d->d_name + len - 4, ".key") != 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, d->d_name);
        (void)file_check(k, "ca.directory", path, true);
    }
    closedir(dir);
}

static void addresses_check(struct check *k)
{
    const struct {
        const char *key;
        const char *address;
    } addresses[] = {{"listen.device_address", k->config->listen_device_address},
                     {"listen.admin_address", k->config->listen_admin_address}};
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
        struct addrinfo *found = NULL;
        if (getaddrinfo(addresses[i].address, NULL, &hints, &found) == 0)
            freeaddrinfo(found);
        else
            problem(k, addresses[i].key, addresses[i].address, "is no IPv4 or IPv6 address");
    }
}

/* CAs of peers, where the key names a file. */
static void anchors_check(struct check *k, const char *key, const char *path)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    struct trust *trust = NULL;
    if (path[0] == '\0')
        return;
    buf_init(&pem, MAX_FILE_BYTES);
    enum err e = file_load(path, &pem);
    if (e)
        problem(k, key, path, reason(e));
    else if (trust_parse_pem(buf_bytes(&pem), &trust))
        problem(k, key, path, "holds no PEM certificates that can be trusted");
    trust_free(trust);
}

static void proxies_check(struct check *k)
{
    const struct config *c = k->config;
    struct address_list balancers;
    bool local = strncmp(c->proxy_address, "unix:", 5) == 0;
    if (address_list_parse(c->listen_proxy_protocol_from, &balancers))
        problem(k, "listen.proxy_protocol_from", c->listen_proxy_protocol_from,
                "is no list of addresses and ranges");
    if (c->proxy_address[0] != '\0' && !local &&
        (c->proxy_client_ca[0] == '\0' || c->proxy_names[0] == '\0'))
        problem(k, "proxy.client_ca", "", "and proxy.names must be given with proxy.address");
    anchors_check(k, "proxy.client_ca", c->proxy_client_ca);
    anchors_check(k, "admin.client_ca", c->admin_client_ca);
    anchors_check(k, "hook.ca", c->hook_ca);
}

static void mqtt_check(struct check *k)
{
    const struct config *c = k->config;
    if (c->mqtt_host[0] == '\0')
        return;
    if (c->mqtt_ca[0] == '\0' || c->mqtt_certificate[0] == '\0' || c->mqtt_key[0] == '\0') {
        problem(k, "mqtt.ca", "", "mqtt.certificate and mqtt.key must be given with mqtt.host");
        return;
    }
    anchors_check(k, "mqtt.ca", c->mqtt_ca);
    (void)file_check(k, "mqtt.certificate", c->mqtt_certificate, false);
    (void)file_check(k, "mqtt.key", c->mqtt_key, true);
}

static void journal_files_check(struct check *k)
{
    const struct config *c = k->config;
    EVP_PKEY *key = NULL;
    if (c->journal_directory[0] == '\0')
        return;
    DIR *dir = opendir(c->journal_directory);
    if (!dir)
        problem(k, "journal.directory", c->journal_directory, strerror(errno));
    else
        closedir(dir);
    enum err e = key_load_private(c->journal_key_file, NULL, &key);
    if (e || key_kind_of(key) != KEY_P256)
        problem(k, "journal.key_file", c->journal_key_file, e ? reason(e) : "is no P-256 key");
    key_free(key);
}

static void words_check(struct check *k)
{
    static const char *const modes[] = {"",        "disable",   "allow",      "prefer",
                                        "require", "verify-ca", "verify-full"};
    enum log_level level;
    bool known = false;
    for (size_t i = 0; i < ARRAY_LEN(modes); i++)
        known |= strcmp(modes[i], k->config->database_sslmode) == 0;
    if (!known)
        problem(k, "database.sslmode", k->config->database_sslmode, "is no mode of libpq");
    if (log_level_parse(k->config->log_level, &level))
        problem(k, "log.level", k->config->log_level, "must be debug, info, warn or error");
}

static void credentials_check(struct check *k)
{
    for (int i = 0; i < CREDENTIAL_COUNT; i++) {
        struct buf secret;
        const char *where = "";
        enum err e = credential_load((enum credential)i, k->config, &secret, &where);
        if (e)
            problem(k, credential_variable((enum credential)i), where, reason(e));
        credential_done(&secret);
    }
}

static void database_check(struct check *k)
{
    char message[CONFIG_MESSAGE_BYTES] = "";
    struct db *db = NULL;
    enum err e = server_database(k->config, &db, message);
    if (!e)
        e = server_schema_check(db, message);
    db_free(db);
    if (e)
        problem(k, "database", "", message);
}

unsigned check_config(const struct config *config, bool database, FILE *out)
{
    struct check k = {.config = config, .out = out};
    tls_check(&k);
    ca_check(&k);
    addresses_check(&k);
    proxies_check(&k);
    mqtt_check(&k);
    journal_files_check(&k);
    words_check(&k);
    credentials_check(&k);
    if (database)
        database_check(&k);
    return k.problems;
}
