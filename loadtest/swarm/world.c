#include "world.h"

#include <dirent.h>
#include <jansson.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "credential.h"

enum {
    MAX_COMMAND_BYTES = 4096,
    MAX_NAME_BYTES = 32,
    MAX_KEY_TEXT_BYTES = 256,
    BROKER_TRUST_S = 3, /* until the broker has a new CA in its folder */
};

static void processclosep(FILE **f)
{
    if (*f)
        pclose(*f);
}

static enum err complain(const char *what, const char *object)
{
    fprintf(stderr, "swarm: %s%s%s\n", what, object[0] ? ": " : "", object);
    return ERR_INVALID;
}

static enum err address_find(struct dial_target *t, const char *host, const char *port)
{
    return dial_resolve(t, host, port) ? complain("no such host", host) : ERR_OK;
}

/* https://HOST:PORT */
static enum err address_take(struct world *w, const char *url)
{
    char port[8] = "";
    if (!url || sscanf(url, "https://%255[^:/]:%7[0-9]", w->host, port) != 2)
        return complain("MUSTER_URL must be https://HOST:PORT; run `. .dev/env` first", "");
    return address_find(&w->target, w->host, port);
}

static enum err tls_make(const char *cafile, bool knows_time, SSL_CTX **ret)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) ||
        !SSL_CTX_load_verify_locations(ctx, cafile, NULL)) {
        SSL_CTX_free(ctx);
        return complain("MUSTER_CACERT cannot be loaded", cafile);
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (!knows_time)
        X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_NO_CHECK_TIME);
    *ret = ctx;
    return ERR_OK;
}

static void cas_done(struct call *c)
{
    struct world *w = c->owner;
    if (c->stage == CALL_DONE && c->status == 200)
        w->ca_count = credential_certs(c->answer, w->cas, WORLD_MAX_CAS);
    loop_stop(w->loop);
}

/* The CAs below the roots, which are trusted already. */
static enum err cas_fetch(struct world *w)
{
    struct call c = {.target = &w->target,
                     .method = "GET",
                     .path = "/.well-known/est/cacerts",
                     .done = cas_done,
                     .owner = w};
    struct loop *own = w->loop;
    if (loop_new(&w->loop))
        return complain("out of memory", "");
    w->target.loop = w->loop;
    if (!call_start(&c))
        loop_run(w->loop);
    loop_free(w->loop);
    w->loop = w->target.loop = own;
    return w->ca_count > 0 ? ERR_OK : complain("the server does not tell its CAs at", w->host);
}

/* The only process of that name whose parent has another; 0: none or several. */
static int process_find(const char *name)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    int found = 0, count = 0;
    while (proc && (entry = readdir(proc))) {
        char path[300], comm[MAX_NAME_BYTES] = "", parent[MAX_NAME_BYTES] = "";
        int pid = atoi(entry->d_name), ppid = 0;
        snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
        _cleanup_(fclosep) FILE *file = pid > 0 ? fopen(path, "re") : NULL;
        if (!file || fscanf(file, "%*d (%31[^)]) %*c %d", comm, &ppid) != 2 ||
            strcmp(comm, name) != 0)
            continue;
        snprintf(path, sizeof(path), "/proc/%d/comm", ppid);
        _cleanup_(fclosep) FILE *above = fopen(path, "re");
        if (above && fscanf(above, "%31s", parent) == 1 && strcmp(parent, name) == 0)
            continue;
        found = pid;
        count++;
    }
    if (proc)
        closedir(proc);
    return count == 1 ? found : 0;
}

enum err world_open(struct world *w)
{
    const char *cafile = getenv("MUSTER_CACERT");
    enum err e = address_take(w, getenv("MUSTER_URL"));
    if (!e && !cafile)
        e = complain("MUSTER_CACERT is not set; run `. .dev/env` first", "");
    if (!e)
        e = tls_make(cafile, true, &w->target.tls);
    if (!e)
        e = loop_new(&w->loop);
    if (!e)
        e = cas_fetch(w);
    if (e)
        return e;
    w->lost_target = w->target;
    e = tls_make(cafile, false, &w->lost_target.tls);
    w->trust = X509_STORE_new();
    if (!w->trust || !X509_STORE_load_file(w->trust, cafile))
        e = complain("MUSTER_CACERT cannot be loaded", cafile);
    w->target.loop = w->lost_target.loop = w->loop;
    w->database = getenv("MUSTER_DATABASE");
    if (w->usage.server == 0)
        w->usage.server = process_find("musterd");
    if (w->usage.database == 0)
        w->usage.database = process_find("postgres");
    if (w->usage.broker == 0)
        w->usage.broker = process_find("mosquitto");
    return e;
}

void world_close(struct world *w)
{
    for (size_t i = 0; i < w->ca_count; i++)
        X509_free(w->cas[i]);
    X509_free(w->claim.certificate);
    EVP_PKEY_free(w->claim.key);
    secret_cleanse(w->group_key, sizeof(w->group_key));
    X509_STORE_free(w->trust);
    SSL_CTX_free(w->target.tls);
    SSL_CTX_free(w->lost_target.tls);
    loop_free(w->loop);
}

/* Runs the operator's command and takes its JSON. */
static json_t *muster(const char *fmt, ...) PRINTF_LIKE(1, 2);
static json_t *muster(const char *fmt, ...)
{
    char command[MAX_COMMAND_BYTES];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(command, sizeof(command), fmt, ap);
    va_end(ap);
    _cleanup_(processclosep) FILE *out =
        n > 0 && (size_t)n < sizeof(command) ? popen(command, "re") : NULL;
    return out ? json_loadf(out, 0, NULL) : NULL;
}

static enum err serials_write(const struct scenario *s, const char *prefix, const char *path)
{
    _cleanup_(fclosep) FILE *file = fopen(path, "we");
    if (!file)
        return complain("cannot write", path);
    for (int64_t n = 0; n < s->devices; n++)
        fprintf(file, "%s-%06lld\n", prefix, (long long)n);
    return ERR_OK;
}

static enum err allowlist_fill(const struct scenario *s, const char *path)
{
    json_t *template = muster("muster template show %s --json", s->template_name);
    const char *product = json_string_value(json_object_get(template, "product"));
    json_t *report =
        product ? muster("muster allowlist import '%s' --product %s --json", path, product) : NULL;
    json_int_t imported = json_integer_value(json_object_get(report, "imported"));
    enum err e =
        imported == s->devices ? ERR_OK : complain("the allowlist was not taken", s->template_name);
    json_decref(report);
    json_decref(template);
    return e;
}

static enum err tokens_take(const json_t *minted, size_t count, char ***ret_tokens)
{
    char **tokens = calloc(count, sizeof(*tokens));
    for (size_t i = 0; tokens && i < count; i++) {
        const char *text = json_string_value(json_object_get(json_array_get(minted, i), "token"));
        tokens[i] = text ? strdup(text) : NULL;
        if (!tokens[i]) {
            while (i > 0)
                free(tokens[--i]);
            free(tokens);
            return complain("no tokens were minted", "");
        }
    }
    *ret_tokens = tokens;
    return tokens ? ERR_OK : ERR_NO_MEMORY;
}

enum err world_prepare(const struct scenario *s, const char *prefix, const char *folder,
                       char ***ret_tokens, size_t *ret_count)
{
    char path[MAX_COMMAND_BYTES / 2];
    snprintf(path, sizeof(path), "%s/serials", folder);
    enum err e = serials_write(s, prefix, path);
    if (!e && s->allowlist)
        e = allowlist_fill(s, path);
    *ret_tokens = NULL;
    *ret_count = 0;
    if (!e && !scenario_door_has_tokens(s->door))
        (void)unlink(path);
    if (e || !scenario_door_has_tokens(s->door))
        return e;
    json_t *minted = s->bound_tokens
                         ? muster("muster token create --template %s --serials '%s' --json",
                                  s->template_name, path)
                         : muster("muster token create --template %s --uses %lld --json",
                                  s->template_name, (long long)s->devices);
    *ret_count = s->bound_tokens ? (size_t)s->devices : 1;
    e = tokens_take(minted, *ret_count, ret_tokens);
    json_decref(minted);
    (void)unlink(path);
    return e;
}

static enum err broker_find(struct world *w)
{
    const char *host = getenv("MUSTER_MQTT_HOST"), *port = getenv("MUSTER_MQTT_PORT");
    if (!host || !port || strlen(host) >= sizeof(w->broker_host))
        return complain("MUSTER_MQTT_HOST or MUSTER_MQTT_PORT is not set", "");
    snprintf(w->broker_host, sizeof(w->broker_host), "%s", host);
    w->broker = w->target;
    w->lost_broker = w->lost_target;
    enum err e = address_find(&w->broker, w->broker_host, port);
    return e ? e : address_find(&w->lost_broker, w->broker_host, port);
}

/* PATH.pem and PATH.key, as the operator's command leaves them; they are used up. */
static enum err claim_load(struct claim_door *door, const char *path)
{
    char pem[MAX_COMMAND_BYTES], key[MAX_COMMAND_BYTES];
    snprintf(pem, sizeof(pem), "%s.pem", path);
    snprintf(key, sizeof(key), "%s.key", path);
    _cleanup_(fclosep) FILE *certificate_file = fopen(pem, "re");
    _cleanup_(fclosep) FILE *key_file = fopen(key, "re");
    X509_free(door->certificate);
    EVP_PKEY_free(door->key);
    door->certificate = certificate_file ? PEM_read_X509(certificate_file, NULL, NULL, NULL) : NULL;
    door->key = key_file ? PEM_read_PrivateKey(key_file, NULL, NULL, NULL) : NULL;
    (void)unlink(pem);
    (void)unlink(key);
    return door->certificate && door->key ? ERR_OK : ERR_INVALID;
}

enum err world_claim(struct world *w, enum scenario_door door, const char *name,
                     const char *template_name, const char *folder)
{
    char path[MAX_COMMAND_BYTES / 2];
    w->claim.kind = door;
    w->claim.template_name = template_name;
    if (door == DOOR_CLAIM_MQTT && broker_find(w))
        return ERR_INVALID;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    json_decref(muster("muster claim create %s --template %s --rate 0 --max-pending 100000"
                       " --out '%s' >/dev/null",
                       name, template_name, path));
    return claim_load(&w->claim, path) ? complain("no claim was made for template", template_name)
                                       : ERR_OK;
}

static const char own_template[] =
    "{\"Parameters\":{\"SerialNumber\":{\"Type\":\"String\"}},\"Resources\":{\"thing\":{\"Type\":"
    "\"AWS::IoT::Thing\",\"Properties\":{\"ThingName\":{\"Ref\":\"SerialNumber\"}}},"
    "\"certificate\":{\"Type\":\"AWS::IoT::Certificate\",\"Properties\":{\"CertificateId\":{"
    "\"Ref\":"
    "\"AWS::IoT::Certificate::Id\"},\"Status\":\"ACTIVE\"}}},\"Muster\":{\"Credentials\":"
    "[\"token\",\"factory\",\"claim\"],\"Allowlist\":\"required\",\"Validity\":\"365d\"}}\n";

static enum err text_store(const char *path, const char *text)
{
    _cleanup_(fclosep) FILE *file = fopen(path, "we");
    return file && fputs(text, file) >= 0 ? ERR_OK : complain("cannot write", path);
}

static enum err cert_store(const char *path, X509 *x)
{
    _cleanup_(fclosep) FILE *file = fopen(path, "we");
    return file && PEM_write_X509(file, x) ? ERR_OK : complain("cannot write", path);
}

static const char jit_template[] =
    "{\"Parameters\":{\"AWS::IoT::Certificate::CommonName\":{\"Type\":\"String\"},"
    "\"AWS::IoT::Certificate::Id\":{\"Type\":\"String\"}},\"Resources\":{\"thing\":{\"Type\":"
    "\"AWS::IoT::Thing\",\"Properties\":{\"ThingName\":{\"Ref\":"
    "\"AWS::IoT::Certificate::CommonName\"}}},\"certificate\":{\"Type\":"
    "\"AWS::IoT::Certificate\",\"Properties\":{\"CertificateId\":{\"Ref\":"
    "\"AWS::IoT::Certificate::Id\"},\"Status\":\"ACTIVE\"}}}}\n";

/* A CA with its template, for the product of MUSTER_TEMPLATE. */
struct registration {
    X509 *ca;
    const char *name;
    const char *template_name;
    const char *document; /* of the template */
    const char *flags;    /* of muster ca register */
};

static enum err ca_register(const struct registration *r, const char *folder)
{
    char document[MAX_COMMAND_BYTES / 2], pem[MAX_COMMAND_BYTES / 2];
    const char *theirs = getenv("MUSTER_TEMPLATE");
    snprintf(document, sizeof(document), "%s/template", folder);
    snprintf(pem, sizeof(pem), "%s/ca", folder);
    enum err e = text_store(document, r->document);
    if (!e)
        e = cert_store(pem, r->ca);
    if (e)
        return e;
    json_t *template = muster("muster template show %s --json", theirs ? theirs : "");
    const char *product = json_string_value(json_object_get(template, "product"));
    json_t *put = product ? muster("muster template put %s '%s' --product %s --json",
                                   r->template_name, document, product)
                          : NULL;
    json_t *registered =
        put ? muster("muster ca register %s '%s' --template %s %s --without-proof --json", r->name,
                     pem, r->template_name, r->flags)
            : NULL;
    if (!registered)
        e = complain("the factory's CA was not registered for the product of template",
                     theirs ? theirs : "MUSTER_TEMPLATE, which is not set");
    json_decref(registered);
    json_decref(put);
    json_decref(template);
    (void)unlink(document);
    (void)unlink(pem);
    return e;
}

enum err world_register(X509 *ca, const char *name, const char *folder)
{
    const struct registration r = {ca, name, WORLD_TEMPLATE, own_template, "--auto off"};
    return ca_register(&r, folder);
}

enum err world_factory(struct world *w, enum scenario_door door, const char *name,
                       const char *folder)
{
    struct claim_door *d = &w->claim;
    d->kind = door;
    d->template_name = WORLD_JIT_TEMPLATE;
    d->key = EVP_EC_gen("P-256");
    d->certificate = d->key ? credential_authority(d->key, name) : NULL;
    if (!d->certificate)
        return ERR_NO_MEMORY;
    if (scenario_door_is_mqtt(door) && broker_find(w))
        return ERR_INVALID;
    const struct registration r = {d->certificate, name, WORLD_JIT_TEMPLATE, jit_template,
                                   door == DOOR_JITR ? "--jit jitr" : "--auto on"};
    enum err e = ca_register(&r, folder);
    if (!e && scenario_door_is_mqtt(door))
        sleep(BROKER_TRUST_S);
    return e;
}

/* Where devices register, and whether there is a broker to send them to. */
static enum err scope_find(struct world *w, const struct scenario *s)
{
    const char *scope = s->id_scope[0] ? s->id_scope : getenv("MUSTER_DPS_ID_SCOPE");
    if (!scope || scope[0] == '\0' || strlen(scope) >= sizeof(w->scope))
        return complain("id_scope is missing: MUSTER_DPS_ID_SCOPE is not set", "");
    snprintf(w->scope, sizeof(w->scope), "%s", scope);
    json_t *brokers = muster("muster endpoint list --json");
    size_t count = json_array_size(brokers);
    json_decref(brokers);
    return count > 0
               ? ERR_OK
               : complain("there is no broker to send devices to; `muster endpoint put` one", "");
}

static enum err group_key_load(struct world *w, const char *path, struct claim_door *door)
{
    _cleanup_(buf_donep) struct buf text = {0};
    buf_init(&text, MAX_KEY_TEXT_BYTES);
    if (file_load_private(path, &text))
        return complain("group_key is not a file that only you may read", path);
    enum err e = dps_key_read(buf_bytes(&text), w->group_key, &door->group_key.len);
    return e ? complain("group_key is not the base64 of 16 to 64 bytes", path) : ERR_OK;
}

/* The key is told only now. */
static enum err group_key_take(struct world *w, const json_t *group, struct claim_door *door)
{
    const char *text = json_string_value(json_object_get(group, "primary_key"));
    return text ? dps_key_read(bytes_text(text), w->group_key, &door->group_key.len) : ERR_INVALID;
}

static enum err group_make(struct world *w, const struct scenario *s, const char *name,
                           const char *ca, struct claim_door *door)
{
    json_t *group = ca ? muster("muster enrollment-group create %s --attestation x509 --ca %s"
                                " --template %s --json",
                                name, ca, s->template_name)
                       : muster("muster enrollment-group create %s --attestation symmetric-key"
                                " --template %s --json",
                                name, s->template_name);
    enum err e = group ? ERR_OK : ERR_INVALID;
    if (!e && !ca)
        e = group_key_take(w, group, door);
    json_decref(group);
    return e ? complain("no enrollment group was made for template", s->template_name) : ERR_OK;
}

enum err world_group(struct world *w, const struct scenario *s, const char *name, const char *ca,
                     struct claim_door *ret_door)
{
    struct claim_door d = *ret_door;
    enum err e = scope_find(w, s);
    if (!e)
        e = !ca && s->group_key[0] ? group_key_load(w, s->group_key, &d)
                                   : group_make(w, s, name, ca, &d);
    if (e)
        return e;
    d.kind = ca ? DOOR_DPS_X509 : DOOR_DPS_SAS;
    d.scope = w->scope;
    d.group_key.data = w->group_key;
    d.csr = s->csr;
    *ret_door = d;
    return ERR_OK;
}

enum err world_dps(struct world *w, const struct scenario *s, const char *name, const char *folder)
{
    struct claim_door *d = &w->claim;
    if (s->door == DOOR_DPS_SAS)
        return world_group(w, s, name, NULL, d);
    d->key = EVP_EC_gen("P-256");
    d->certificate = d->key ? credential_authority(d->key, name) : NULL;
    enum err e = d->certificate ? world_register(d->certificate, name, folder) : ERR_NO_MEMORY;
    return e ? e : world_group(w, s, name, name, d);
}
