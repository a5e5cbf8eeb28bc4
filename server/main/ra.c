#include "main/ra.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "enroll/catalog.h"
#include "main/message.h"
#include "main/server.h"
#include "main/service.h"
#include "ops/credential.h"
#include "pki/ca.h"
#include "pki/key.h"

enum { YEARS = 5, YEAR_S = 365 * 86400, MAX_FILE_BYTES = 64 * 1024, ARENA_BYTES = 256 * 1024 };

/* What making one takes. */
struct making {
    const struct config *config;
    const char *organization;
    struct arena arena;
    struct buf passphrase;
    struct signer_source source;
    struct db *db;
    struct catalog *catalog;
    struct snapshot *snapshot;
    const struct issuer *issuer;
};

static enum err settings_check(const struct config *c, char *message)
{
    bool both = c->scep_certificate[0] != '\0' && c->scep_key[0] != '\0';
    return both ? ERR_OK
                : message_of(message, ERR_INVALID, "[scep] certificate and key must be given");
}

/* Never over a key that is there: answers under way are for it. */
static enum err key_ensure(struct making *m, char *message)
{
    _cleanup_(key_freep) EVP_PKEY *key = NULL;
    _cleanup_(buf_donep) struct buf pem = {0};
    char path[PATH_MAX];
    const char *reference = m->config->scep_key;
    if (signer_is_pkcs11(reference))
        return ERR_OK;
    int n = snprintf(path, sizeof(path), "%s/%s", m->source.folder, reference);
    if (n < 0 || (size_t)n >= sizeof(path))
        return message_of(message, ERR_INVALID, "[scep] key");
    if (access(path, F_OK) == 0)
        return ERR_OK;
    buf_init(&pem, MAX_FILE_BYTES);
    enum err e = key_generate(KEY_RSA2048, &key);
    if (!e)
        e = key_encode_private(key, m->source.passphrase, &pem);
    if (!e)
        e = file_store(path, buf_bytes(&pem), 0600);
    if (pem.len > 0)
        secret_cleanse(pem.data, pem.len);
    return e ? message_at(message, e, "[scep] key", path) : ERR_OK;
}

static enum err issuer_find(struct making *m, const char *name, char *message)
{
    enum err e = server_database(m->config, &m->db, message);
    if (!e)
        e = server_schema_check(m->db, message);
    if (e)
        return e;
    e = catalog_new(m->db, &m->source, &m->catalog);
    if (!e)
        e = catalog_get(m->catalog, &m->snapshot);
    if (e)
        return message_of(message, e, "reading the registry's CAs");
    m->issuer = snapshot_issuer(m->snapshot, name);
    return m->issuer ? ERR_OK
                     : message_of(message, ERR_NOT_FOUND,
                                  "there is no such issuing CA, or its key cannot be used");
}

static enum err certificate_make(struct making *m, struct signer *signer, char *message)
{
    char cn[64];
    struct bytes der;
    snprintf(cn, sizeof(cn), "%.40s SCEP RA", issuer_name(m->issuer));
    const struct ca_request rq = {.common_name = cn,
                                  .organization = m->organization,
                                  .validity_s = (int64_t)YEARS * YEAR_S,
                                  .now_s = clock_wall_s()};
    enum err e = ca_make_ra(signer->ops->key_get(signer), &rq, m->issuer, &m->arena, &der);
    const char *pem = e ? NULL : cert_pem(&m->arena, der);
    if (!e)
        e = pem ? file_store(m->config->scep_certificate, bytes_text(pem), 0644) : ERR_NO_MEMORY;
    return e ? message_at(message, e, "[scep] certificate", m->config->scep_certificate) : ERR_OK;
}

static enum err make(struct making *m, const char *issuer, char *message)
{
    _cleanup_(signer_freep) struct signer *signer = NULL;
    enum err e = settings_check(m->config, message);
    if (!e)
        e = service_keys(m->config, &m->passphrase, &m->source, message);
    if (!e)
        e = issuer_find(m, issuer, message);
    if (!e)
        e = key_ensure(m, message);
    if (e)
        return e;
    e = signer_open(&m->source, m->config->scep_key, &signer);
    return e ? message_at(message, e, "[scep] key", m->config->scep_key)
             : certificate_make(m, signer, message);
}

enum err ra_make(const struct config *config, const char *issuer, const char *organization,
                 char message[CONFIG_MESSAGE_BYTES])
{
    struct making m = {.config = config, .organization = organization};
    arena_init(&m.arena, ARENA_BYTES);
    enum err e = make(&m, issuer, message);
    snapshot_drop(m.snapshot);
    catalog_free(m.catalog);
    db_free(m.db);
    credential_done(&m.passphrase);
    arena_done(&m.arena);
    return e;
}

static enum err certificate_load(const char *path, X509 **ret_cert)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    buf_init(&pem, MAX_FILE_BYTES);
    enum err e = file_load(path, &pem);
    return e ? e : cert_parse_first_pem(buf_bytes(&pem), ret_cert);
}

enum err ra_load(struct service *v, const struct config *c, char message[CONFIG_MESSAGE_BYTES])
{
    _cleanup_(cert_freep) X509 *cert = NULL;
    _cleanup_(signer_freep) struct signer *signer = NULL;
    v->scep_options = (struct scep_options){c->scep_allow_3des != 0, c->scep_allow_sha1 != 0};
    if (c->scep_certificate[0] == '\0' && c->scep_key[0] == '\0' && c->scep_address[0] == '\0')
        return ERR_OK;
    enum err e = settings_check(c, message);
    if (e)
        return e;
    e = certificate_load(c->scep_certificate, &cert);
    if (e)
        return message_at(message, e, "[scep] certificate", c->scep_certificate);
    e = signer_open(&v->keys, c->scep_key, &signer);
    if (e)
        return message_at(message, e, "[scep] key", c->scep_key);
    e = scep_ra_new(cert, signer, &v->scep);
    if (e)
        return message_of(message, e,
                          "[scep] certificate and key are no pair, or the key is no RSA");
    signer = NULL; /* the registration authority has it */
    return ERR_OK;
}
