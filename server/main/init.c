#include "main/init.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "enroll/token_text.h"
#include "main/server.h"
#include "main/service.h"
#include "ops/credential.h"
#include "pki/ca.h"
#include "pki/cert.h"
#include "pki/issuer.h"
#include "store/bootstrap.h"
#include "store/migrate.h"

enum {
    YEAR_S = 365 * 86400,
    ROOT_YEARS = 20,
    ISSUING_YEARS = 10,
    SERVER_DAYS = 397, /* what TLS clients put up with */
    MAX_PEM_BYTES = 64 * 1024,
    MAX_WRITTEN = 8,
    MAX_ROWS = 3,
    MAX_NAME_CHARS = 64,
    INIT_ARENA_BYTES = 1 << 20,
};

/* A setting-up under way: what was written is unlinked when it fails. */
struct setup {
    const struct config *config;
    const struct init_request *rq;
    char *message;
    struct arena arena;
    char written[MAX_WRITTEN][PATH_MAX];
    size_t written_count;
    struct buf passphrase; /* secret; keys are written and read with it */
    struct signer_source keys;
    EVP_PKEY *root_key; /* NULL: imported without it */
    struct bytes root_der;
    struct signer *signer; /* of a key that is not made here; NULL: it is */
    EVP_PKEY *issuing_key; /* the signer's, or ours */
    struct bytes issuing_der;
    struct cert_info info[MAX_ROWS];
    struct bootstrap_ca rows[MAX_ROWS];
};

static enum err failed(struct setup *s, enum err e, const char *what, const char *object)
{
    snprintf(s->message, CONFIG_MESSAGE_BYTES, "%s %.300s: %s", what, object, err_name(e));
    return e;
}

static enum err path_in_ca_dir(struct setup *s, const char *name, const char *suffix,
                               char ret_path[PATH_MAX])
{
    int n = snprintf(ret_path, PATH_MAX, "%s/%s.%s", s->config->ca_directory, name, suffix);
    return n > 0 && n < PATH_MAX ? ERR_OK : failed(s, ERR_INVALID, "path", name);
}

static enum err file_write_new(struct setup *s, const char *path, struct bytes content,
                               unsigned mode)
{
    if (access(path, F_OK) == 0) {
        snprintf(s->message, CONFIG_MESSAGE_BYTES, "%.300s exists already and is not overwritten",
                 path);
        return ERR_CONFLICT;
    }
    enum err e = s->written_count < MAX_WRITTEN ? file_store(path, content, mode) : ERR_INVALID;
    if (e)
        return failed(s, e, "cannot write", path);
    snprintf(s->written[s->written_count++], PATH_MAX, "%s", path);
    return ERR_OK;
}

static enum err key_write(struct setup *s, EVP_PKEY *key, const char *passphrase, const char *path)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    buf_init(&pem, MAX_PEM_BYTES);
    enum err e = key_encode_private(key, passphrase, &pem);
    return e ? failed(s, e, "encoding the key for", path)
             : file_write_new(s, path, buf_bytes(&pem), 0600);
}

static enum err cert_write(struct setup *s, struct bytes der, const char *path)
{
    const char *pem = cert_pem(&s->arena, der);
    if (!pem)
        return failed(s, ERR_NO_MEMORY, "encoding", path);
    return file_write_new(s, path, bytes_text(pem), 0644);
}

/* The key and certificate of a CA of ours as NAME.key and NAME.pem. */
static enum err ca_files_write(struct setup *s, const char *name, EVP_PKEY *key, struct bytes der)
{
    char path[PATH_MAX];
    enum err e = key ? path_in_ca_dir(s, name, "key", path) : ERR_OK;
    if (!e && key)
        e = key_write(s, key, s->keys.passphrase, path);
    if (!e)
        e = path_in_ca_dir(s, name, "pem", path);
    return e ? e : cert_write(s, der, path);
}

static struct ca_request ca_request_fill(struct setup *s, const char *kind, int years, int path_len)
{
    const char *organization = s->rq->organization;
    return (struct ca_request){
        .common_name =
            arena_printf(&s->arena, "%s %s", organization ? organization : "Muster", kind),
        .organization = organization,
        .validity_s = (int64_t)years * YEAR_S,
        .path_len = path_len,
        .now_s = clock_wall_s(),
    };
}

static enum err root_make(struct setup *s)
{
    struct ca_request rq = ca_request_fill(s, "Root CA", ROOT_YEARS, -1);
    enum err e = key_generate(KEY_P256, &s->root_key);
    if (!e)
        e = ca_make_root(s->root_key, &rq, &s->arena, &s->root_der);
    return e ? failed(s, e, "making", "the root CA")
             : ca_files_write(s, "root", s->root_key, s->root_der);
}

/* What the registry calls the issuing key. */
static const char *key_reference(struct setup *s)
{
    return s->rq->key_uri ? s->rq->key_uri : arena_printf(&s->arena, "%s.key", s->rq->issuer_name);
}

/* The key that is there already: behind PKCS#11, or as NAME.key. */
static enum err issuing_key_open(struct setup *s)
{
    const char *reference = key_reference(s);
    enum err e = reference ? signer_open(&s->keys, reference, &s->signer) : ERR_NO_MEMORY;
    if (e)
        return failed(s, e, "opening the key", reference ? reference : "");
    s->issuing_key = s->signer->ops->key_get(s->signer);
    return ERR_OK;
}

static enum err issuing_key_make(struct setup *s)
{
    if (s->rq->key_uri)
        return issuing_key_open(s);
    enum err e = key_generate(KEY_P256, &s->issuing_key);
    return e ? failed(s, e, "making", "the issuing key") : ERR_OK;
}

/* Of a key that is made here. */
static EVP_PKEY *issuing_key_own(const struct setup *s)
{
    return s->signer ? NULL : s->issuing_key;
}

static enum err issuing_make(struct setup *s)
{
    char kind[96];
    snprintf(kind, sizeof(kind), "Issuing CA %.64s", s->rq->issuer_name);
    struct ca_request rq = ca_request_fill(s, kind, ISSUING_YEARS, 0);
    enum err e = issuing_key_make(s);
    if (e)
        return e;
    if (!e)
        e = ca_make_issuing(s->issuing_key, &rq, s->root_der, s->root_key, &s->arena,
                            &s->issuing_der);
    return e ? failed(s, e, "making", "the issuing CA")
             : ca_files_write(s, s->rq->issuer_name, issuing_key_own(s), s->issuing_der);
}

static enum err cert_file_load(struct setup *s, const char *path, struct bytes *ret_der)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    _cleanup_(cert_freep) X509 *x = NULL;
    buf_init(&pem, MAX_PEM_BYTES);
    enum err e = file_load(path, &pem);
    if (!e)
        e = cert_parse_first_pem(buf_bytes(&pem), &x);
    if (!e)
        e = cert_encode(&s->arena, x, ret_der);
    return e ? failed(s, e, "reading the certificate", path) : ERR_OK;
}

static enum err key_file_load(struct setup *s, const char *path, EVP_PKEY **ret_key)
{
    enum err e = key_load_private(path, s->keys.passphrase, ret_key);
    if (e == ERR_DENIED) {
        snprintf(s->message, CONFIG_MESSAGE_BYTES,
                 "%.300s must be readable by its owner only (mode 0600)", path);
        return e;
    }
    return e ? failed(s, e, "reading the key", path) : ERR_OK;
}

static enum err issuing_import(struct setup *s)
{
    const struct init_request *rq = s->rq;
    enum err e = cert_file_load(s, rq->import_issuing, &s->issuing_der);
    if (!e)
        e = rq->import_key ? key_file_load(s, rq->import_key, &s->issuing_key)
                           : issuing_key_open(s);
    return e ? e : ca_files_write(s, rq->issuer_name, issuing_key_own(s), s->issuing_der);
}

/* A key is brought along, or it is there: issuer-request has made it, or the token has it. */
static enum err import_check(struct setup *s, bool root_wanted)
{
    const struct init_request *rq = s->rq;
    bool any = rq->import_root || rq->import_issuing || rq->import_key;
    bool all = (rq->import_root || !root_wanted) && rq->import_issuing;
    bool twice = rq->import_key && rq->key_uri;
    if ((!any || all) && !twice)
        return ERR_OK;
    snprintf(s->message, CONFIG_MESSAGE_BYTES,
             twice ? "the key is either in a file or behind PKCS#11"
                   : "--import-key needs --import-issuing%s",
             root_wanted ? ", and that --import-root" : "");
    return ERR_INVALID;
}

/* Signed with the CA it is going to serve beside; devices trust the root. */
static enum err server_cert_make(struct setup *s)
{
    const struct config *c = s->config;
    static const char *const local[] = {"localhost", "127.0.0.1", "::1"};
    bool named = s->rq->server_name_count > 0;
    struct bytes der;
    if (access(c->tls_certificate, F_OK) == 0)
        return ERR_OK;
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    enum err e = key_generate(KEY_P256, &key);
    if (!e)
        e = ca_make_server(key, named ? s->rq->server_names : local,
                           named ? s->rq->server_name_count : ARRAY_LEN(local),
                           (int64_t)SERVER_DAYS * 86400, clock_wall_s(), s->issuing_der,
                           s->issuing_key, &s->arena, &der);
    if (e)
        return failed(s, e, "making", "the server's certificate");
    const char *leaf = cert_pem(&s->arena, der);
    const char *issuing = cert_pem(&s->arena, s->issuing_der);
    const char *chain = leaf && issuing ? arena_printf(&s->arena, "%s%s", leaf, issuing) : NULL;
    e = chain ? key_write(s, key, NULL, c->tls_key)
              : failed(s, ERR_NO_MEMORY, "encoding", "the server's certificate");
    return e ? e : file_write_new(s, c->tls_certificate, bytes_text(chain), 0644);
}

/* Names become file names and registry keys. */
static enum err name_check(struct setup *s, const char *name)
{
    size_t len = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
    if (len > 0 && len <= MAX_NAME_CHARS && name[len] == '\0')
        return ERR_OK;
    snprintf(s->message, CONFIG_MESSAGE_BYTES, "a name is 1 to %d characters of A-Z a-z 0-9 _ -",
             MAX_NAME_CHARS);
    return ERR_INVALID;
}

/* The folder of the keys is made where it is missing. */
static enum err folder_ensure(struct setup *s)
{
    if (mkdir(s->config->ca_directory, 0700) == 0 || errno == EEXIST)
        return ERR_OK;
    return failed(s, ERR_SYSTEM, "cannot make", s->config->ca_directory);
}

/* What serve will do with the pair: sooner known is better known. */
static enum err issuer_check(struct setup *s)
{
    struct signer *signer = NULL;
    struct issuer *issuer = NULL;
    const char *reference = key_reference(s);
    enum err e = reference ? signer_open(&s->keys, reference, &signer) : ERR_NO_MEMORY;
    if (!e)
        e = issuer_new(0, s->rq->issuer_name, s->issuing_der, signer, &issuer);
    if (e)
        signer_free(signer);
    issuer_free(issuer);
    return e ? failed(s, e,
                      "the certificate is no CA, or its key is another's:", s->rq->issuer_name)
             : ERR_OK;
}

/* The registry's row of a CA certificate. */
static enum err row_fill(struct setup *s, size_t n, const char *kind, const char *name,
                         struct bytes der)
{
    _cleanup_(cert_freep) X509 *x = NULL;
    struct cert_info *i = &s->info[n];
    enum err e = cert_decode(der, &x);
    if (!e)
        e = cert_describe(&s->arena, x, i);
    if (!e && !i->is_ca)
        e = ERR_INVALID;
    if (e)
        return failed(s, e, "not a CA certificate:", name);
    s->rows[n] = (struct bootstrap_ca){
        .kind = kind,
        .name = name,
        .der = der,
        .fingerprint = bytes_of(i->fingerprint, SHA256_BYTES),
        .spki_sha256 = bytes_of(i->spki_sha256, SHA256_BYTES),
        .subject = i->subject_text,
        .key_reference = strcmp(kind, "issuing") == 0 ? key_reference(s) : NULL,
        .not_after_s = i->not_after_s,
    };
    return ERR_OK;
}

static void setup_end(struct setup *s, enum err e)
{
    for (size_t i = 0; e && i < s->written_count; i++)
        (void)unlink(s->written[i]);
    key_free(s->root_key);
    key_free(issuing_key_own(s));
    signer_free(s->signer);
    credential_done(&s->passphrase);
    arena_done(&s->arena);
}

static enum err database_open(const struct config *config, struct db **ret_db, char *message)
{
    int version = 0;
    struct db *db = NULL;
    enum err e = server_database(config, &db, message);
    if (e)
        return e;
    e = migrate_check(db, &version, message);
    if (e)
        db_free(db);
    else
        *ret_db = db;
    return e;
}

static enum err registry_write(struct setup *s, struct db *db, const struct bootstrap_ca *rows,
                               size_t count, const char *admin, const uint8_t *hash)
{
    struct bootstrap b = {.cas = rows, .ca_count = count, .admin_name = admin};
    char why[DB_MAX_MESSAGE_BYTES];
    if (admin)
        b.admin_hash = bytes_of(hash, SHA256_BYTES);
    enum err e = bootstrap_write(db, &b, why);
    if (e)
        snprintf(s->message, CONFIG_MESSAGE_BYTES, "the registry refused: %.400s", why);
    return e;
}

static enum err cas_make(struct setup *s)
{
    enum err e = import_check(s, true);
    if (!e)
        e = name_check(s, s->rq->issuer_name);
    if (!e)
        e = folder_ensure(s);
    if (e)
        return e;
    if (s->rq->import_issuing) {
        e = cert_file_load(s, s->rq->import_root, &s->root_der);
        if (!e)
            e = ca_files_write(s, "root", NULL, s->root_der);
        if (!e)
            e = issuing_import(s);
    } else {
        e = root_make(s);
        if (!e)
            e = issuing_make(s);
    }
    if (!e)
        e = issuer_check(s);
    if (!e)
        e = row_fill(s, 0, "root", "root", s->root_der);
    return e ? e : row_fill(s, 1, "issuing", s->rq->issuer_name, s->issuing_der);
}

static enum err first_time_check(struct setup *s, struct db *db)
{
    int issuers = 0;
    enum err e = bootstrap_issuers(db, &issuers);
    if (e)
        return failed(s, e, "reading", "the registry");
    if (issuers == 0)
        return ERR_OK;
    snprintf(s->message, CONFIG_MESSAGE_BYTES,
             "the registry has an issuing CA already; musterd add-issuer makes one more");
    return ERR_CONFLICT;
}

/* Opens the registry, does the work, and takes back what was written where it failed. */
static enum err setup_run(const struct config *config, const struct init_request *rq, char *message,
                          enum err (*work)(struct setup *s, struct db *db))
{
    struct setup s = {.config = config, .rq = rq, .message = message};
    struct db *db = NULL;
    enum err e = database_open(config, &db, message);
    if (e)
        return e;
    arena_init(&s.arena, INIT_ARENA_BYTES);
    e = service_keys(config, &s.passphrase, &s.keys, message);
    if (!e)
        e = work(&s, db);
    setup_end(&s, e);
    db_free(db);
    return e;
}

/* Writes the rows and one admin token, which is told where that succeeded. */
static enum err token_write(struct setup *s, struct db *db, size_t rows)
{
    char token[TOKEN_TEXT_BYTES];
    uint8_t hash[SHA256_BYTES];
    enum err e = token_text_new("mat_", token, hash);
    if (e)
        return failed(s, e, "making", "the admin token");
    e = registry_write(s, db, s->rows, rows, s->rq->admin_name, hash);
    if (!e)
        printf("%s\n", token);
    return e;
}

static enum err first_time(struct setup *s, struct db *db)
{
    enum err e = first_time_check(s, db);
    if (!e)
        e = cas_make(s);
    if (!e)
        e = server_cert_make(s);
    return e ? e : token_write(s, db, 2);
}

enum err init_run(const struct config *config, const struct init_request *rq,
                  char message[CONFIG_MESSAGE_BYTES])
{
    return setup_run(config, rq, message, first_time);
}

/* The root to sign with, from its files. */
static enum err root_load(struct setup *s, const char *name)
{
    char path[PATH_MAX];
    enum err e = name_check(s, name);
    if (!e)
        e = path_in_ca_dir(s, name, "pem", path);
    if (!e)
        e = cert_file_load(s, path, &s->root_der);
    if (!e)
        e = path_in_ca_dir(s, name, "key", path);
    return e ? e : key_file_load(s, path, &s->root_key);
}

static enum err issuer_add(struct setup *s, struct db *db)
{
    enum err e = import_check(s, false);
    if (!e)
        e = name_check(s, s->rq->issuer_name);
    if (!e && s->rq->import_issuing)
        e = issuing_import(s);
    else if (!e) {
        e = root_load(s, s->rq->root_name);
        if (!e)
            e = issuing_make(s);
    }
    if (!e)
        e = issuer_check(s);
    if (!e)
        e = row_fill(s, 1, "issuing", s->rq->issuer_name, s->issuing_der);
    return e ? e : registry_write(s, db, &s->rows[1], 1, NULL, NULL);
}

enum err init_issuer(const struct config *config, const struct init_request *rq,
                     char message[CONFIG_MESSAGE_BYTES])
{
    return setup_run(config, rq, message, issuer_add);
}

/* One root signed by another: whoever trusts the one can follow to the other. */
static enum err cross_make(struct setup *s, size_t row, const char *suffix, struct bytes subject,
                           struct bytes signer, EVP_PKEY *key)
{
    struct bytes der;
    const char *name = arena_printf(&s->arena, "%s-%s", s->rq->issuer_name, suffix);
    if (!name)
        return failed(s, ERR_NO_MEMORY, "naming", suffix);
    enum err e = ca_make_cross(subject, signer, key, clock_wall_s(), &s->arena, &der);
    if (e)
        return failed(s, e, "making", name);
    e = ca_files_write(s, name, NULL, der);
    return e ? e : row_fill(s, row, "rollover", name, der);
}

/* RFC 7030 4.1.3, RFC 4210 4.4: a new root, and the way between it and the old one. */
static enum err root_add(struct setup *s, struct db *db)
{
    _cleanup_(key_freep) EVP_PKEY *new_key = NULL;
    struct bytes new_der;
    char kind[96];
    const char *name = s->rq->issuer_name;
    enum err e = name_check(s, name);
    if (!e)
        e = root_load(s, s->rq->root_name);
    if (e)
        return e;
    snprintf(kind, sizeof(kind), "Root CA %.64s", name);
    struct ca_request rq = ca_request_fill(s, kind, ROOT_YEARS, -1);
    e = key_generate(KEY_P256, &new_key);
    if (!e)
        e = ca_make_root(new_key, &rq, &s->arena, &new_der);
    e = e ? failed(s, e, "making the root CA", name) : ca_files_write(s, name, new_key, new_der);
    if (!e)
        e = row_fill(s, 0, "root", name, new_der);
    if (!e)
        e = cross_make(s, 1, "new-with-old", new_der, s->root_der, s->root_key);
    if (!e)
        e = cross_make(s, 2, "old-with-new", s->root_der, new_der, new_key);
    return e ? e : registry_write(s, db, s->rows, 3, NULL, NULL);
}

enum err init_root(const struct config *config, const struct init_request *rq,
                   char message[CONFIG_MESSAGE_BYTES])
{
    return setup_run(config, rq, message, root_add);
}

static enum err token_add(struct setup *s, struct db *db)
{
    return token_write(s, db, 0);
}

enum err init_admin_token(const struct config *config, const struct init_request *rq,
                          char message[CONFIG_MESSAGE_BYTES])
{
    return setup_run(config, rq, message, token_add);
}

/* The root's holder signs it, wherever that is (docs/ca.md). Nothing comes into the registry yet.
 */
static enum err issuer_ask(struct setup *s, struct db *db)
{
    char kind[96], path[PATH_MAX];
    const char *pem = NULL;
    (void)db;
    enum err e = name_check(s, s->rq->issuer_name);
    if (!e)
        e = folder_ensure(s);
    if (!e)
        e = issuing_key_make(s);
    if (!e && issuing_key_own(s)) {
        e = path_in_ca_dir(s, s->rq->issuer_name, "key", path);
        if (!e)
            e = key_write(s, s->issuing_key, s->keys.passphrase, path);
    }
    if (e)
        return e;
    snprintf(kind, sizeof(kind), "Issuing CA %.64s", s->rq->issuer_name);
    const struct ca_request rq = ca_request_fill(s, kind, ISSUING_YEARS, 0);
    e = ca_make_request(s->issuing_key, &rq, &s->arena, &pem);
    if (e)
        return failed(s, e, "making the request of", s->rq->issuer_name);
    fputs(pem, stdout);
    return ERR_OK;
}

enum err init_issuer_request(const struct config *config, const struct init_request *rq,
                             char message[CONFIG_MESSAGE_BYTES])
{
    return setup_run(config, rq, message, issuer_ask);
}
