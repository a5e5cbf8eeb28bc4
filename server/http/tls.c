#include "http/tls.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/file.h"

enum { MAX_FILE_BYTES = 256 * 1024, MAX_SERVER_CHAIN = 8 };

#define PRIORITIES(groups, exchanges)                                                              \
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:"            \
    "+CHACHA20-POLY1305:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:" groups        \
    "-KX-ALL:" exchanges "+ECDHE-ECDSA:+ECDHE-RSA:%SERVER_PRECEDENCE"

const char tls_priorities[] = PRIORITIES("", "");

/* A client that offers both wants the key it has: no X.509 client offers PSK. For DHE-PSK a client
 * that names groups (RFC 7919) must find one of them. */
const char tls_priorities_psk[] = PRIORITIES("+GROUP-FFDHE2048:", "+ECDHE-PSK:+DHE-PSK:");

/* One loaded certificate; kept until the end, as a handshake may still use it. */
struct generation {
    gnutls_pcert_st certs[MAX_SERVER_CHAIN];
    unsigned count;
    int64_t ends_s; /* the first of them to end, seconds since 1970 */
    gnutls_privkey_t key;
    struct generation *older;
};

struct tls_identity {
    char *cert_path;
    char *key_path;
    pthread_mutex_t lock; /* guards current */
    struct generation *current;
};

static struct tls_identity *installed; /* init only */

static void generation_free(struct generation *g)
{
    for (unsigned i = 0; i < g->count; i++)
        gnutls_pcert_deinit(&g->certs[i]);
    gnutls_privkey_deinit(g->key);
    free(g);
}

static enum err certs_load(struct generation *g, const char *path)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    buf_init(&pem, MAX_FILE_BYTES);
    enum err e = file_load(path, &pem);
    if (e)
        return e;
    gnutls_datum_t datum = {.data = pem.data, .size = (unsigned)pem.len};
    unsigned count = MAX_SERVER_CHAIN;
    if (gnutls_pcert_list_import_x509_raw(g->certs, &count, &datum, GNUTLS_X509_FMT_PEM, 0) < 0)
        return ERR_INVALID;
    g->count = count;
    return ERR_OK;
}

/* When the first of the chain ends. */
static enum err end_find(struct generation *g)
{
    for (unsigned i = 0; i < g->count; i++) {
        gnutls_x509_crt_t cert = NULL;
        if (gnutls_pcert_export_x509(&g->certs[i], &cert) < 0)
            return ERR_INVALID;
        int64_t ends_s = gnutls_x509_crt_get_expiration_time(cert);
        gnutls_x509_crt_deinit(cert);
        if (i == 0 || ends_s < g->ends_s)
            g->ends_s = ends_s;
    }
    return ERR_OK;
}

static enum err key_load(struct generation *g, const char *path)
{
    _cleanup_(buf_donep) struct buf pem = {0};
    buf_init(&pem, MAX_FILE_BYTES);
    enum err e = file_load_private(path, &pem);
    if (e)
        return e;
    gnutls_datum_t datum = {.data = pem.data, .size = (unsigned)pem.len};
    if (gnutls_privkey_import_x509_raw(g->key, &datum, GNUTLS_X509_FMT_PEM, NULL, 0) < 0)
        return ERR_INVALID;
    return ERR_OK;
}

/* Whether the key is the leaf's: one handshake later it would be too late to say so. */
static enum err pair_check(struct generation *g)
{
    gnutls_pubkey_t public = NULL;
    unsigned char cert_id[64], key_id[64];
    size_t cert_len = sizeof(cert_id), key_len = sizeof(key_id);
    if (gnutls_pubkey_init(&public) < 0)
        return ERR_NO_MEMORY;
    bool same = gnutls_pubkey_import_privkey(public, g->key, 0, 0) >= 0 &&
                gnutls_pubkey_get_key_id(public, GNUTLS_KEYID_USE_SHA256, key_id, &key_len) >= 0 &&
                gnutls_pubkey_get_key_id(g->certs[0].pubkey, GNUTLS_KEYID_USE_SHA256, cert_id,
                                         &cert_len) >= 0 &&
                bytes_equal(bytes_of(key_id, key_len), bytes_of(cert_id, cert_len));
    gnutls_pubkey_deinit(public);
    return same ? ERR_OK : ERR_INVALID;
}

static enum err generation_load(const struct tls_identity *t, struct generation **ret)
{
    struct generation *g = calloc(1, sizeof(*g));
    if (!g)
        return ERR_NO_MEMORY;
    enum err e = gnutls_privkey_init(&g->key) < 0 ? ERR_NO_MEMORY : ERR_OK;
    if (!e)
        e = certs_load(g, t->cert_path);
    if (!e)
        e = key_load(g, t->key_path);
    if (!e)
        e = pair_check(g);
    if (!e)
        e = end_find(g);
    if (e)
        generation_free(g);
    else
        *ret = g;
    return e;
}

enum err tls_identity_reload(struct tls_identity *t)
{
    struct generation *g = NULL;
    enum err e = generation_load(t, &g);
    if (e)
        return e;
    pthread_mutex_lock(&t->lock);
    g->older = t->current;
    t->current = g;
    pthread_mutex_unlock(&t->lock);
    return ERR_OK;
}

int64_t tls_identity_ends_s(struct tls_identity *t)
{
    pthread_mutex_lock(&t->lock);
    int64_t ends_s = t->current->ends_s;
    pthread_mutex_unlock(&t->lock);
    return ends_s;
}

enum err tls_identity_new(const char *cert_path, const char *key_path,
                          struct tls_identity **ret_identity)
{
    struct tls_identity *t = calloc(1, sizeof(*t));
    if (!t)
        return ERR_NO_MEMORY;
    pthread_mutex_init(&t->lock, NULL);
    t->cert_path = strdup(cert_path);
    t->key_path = strdup(key_path);
    enum err e = t->cert_path && t->key_path ? tls_identity_reload(t) : ERR_NO_MEMORY;
    if (e)
        tls_identity_free(t);
    else
        *ret_identity = t;
    return e;
}

void tls_identity_free(struct tls_identity *t)
{
    if (!t)
        return;
    while (t->current) {
        struct generation *older = t->current->older;
        generation_free(t->current);
        t->current = older;
    }
    pthread_mutex_destroy(&t->lock);
    free(t->cert_path);
    free(t->key_path);
    free(t);
}

void tls_identity_install(struct tls_identity *t)
{
    installed = t;
}

int tls_identity_retrieve(gnutls_session_t session, const gnutls_datum_t *req_ca_rdn, int nreqs,
                          const gnutls_pk_algorithm_t *pk_algos, int pk_algos_length,
                          gnutls_pcert_st **pcert, unsigned int *pcert_length,
                          gnutls_privkey_t *privkey)
{
    (void)session;
    (void)req_ca_rdn;
    (void)nreqs;
    (void)pk_algos;
    (void)pk_algos_length;
    pthread_mutex_lock(&installed->lock);
    struct generation *g = installed->current;
    pthread_mutex_unlock(&installed->lock);
    *pcert = g->certs;
    *pcert_length = g->count;
    *privkey = g->key;
    return 0;
}

void tls_request_certificate(gnutls_session_t session)
{
    gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUEST);
    gnutls_certificate_send_x509_rdn_sequence(session, 1);
}

enum err tls_peer_chain(gnutls_session_t session, struct arena *arena, struct bytes *ret_chain,
                        size_t max, size_t *ret_count)
{
    unsigned count = 0;
    const gnutls_datum_t *certs = gnutls_certificate_get_peers(session, &count);
    if (!certs)
        count = 0;
    if (count > max)
        return ERR_INVALID;
    for (unsigned i = 0; i < count; i++) {
        void *copy = arena_copy(arena, certs[i].data, certs[i].size);
        if (!copy)
            return ERR_NO_MEMORY;
        ret_chain[i] = bytes_of(copy, certs[i].size);
    }
    *ret_count = count;
    return ERR_OK;
}

enum err tls_channel_binding(gnutls_session_t session, struct arena *arena,
                             struct bytes *ret_binding)
{
    bool tls13 = gnutls_protocol_get_version(session) == GNUTLS_TLS1_3;
    gnutls_datum_t binding = {0};
    *ret_binding = bytes_of(NULL, 0);
    if (!tls13 && gnutls_session_ext_master_secret_status(session) == 0)
        return ERR_OK;
    if (gnutls_session_channel_binding(
            session, tls13 ? GNUTLS_CB_TLS_EXPORTER : GNUTLS_CB_TLS_UNIQUE, &binding) < 0)
        return ERR_OK;
    void *copy = arena_copy(arena, binding.data, binding.size);
    size_t len = binding.size;
    gnutls_free(binding.data);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret_binding = bytes_of(copy, len);
    return ERR_OK;
}
