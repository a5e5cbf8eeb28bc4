#include "pki/ca.h"

#include <arpa/inet.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "pki/build.h"
#include "pki/cert.h"
#include "pki/issuer.h"

enum {
    BACKDATE_S = 86400 /* for clocks of devices that are a day behind */,
    MAX_SAN_TEXT_BYTES = 4096,
    SERIAL_BYTES = 20
};

DEFINE_CLEANUP(X509_NAME *, X509_NAME_free);
DEFINE_CLEANUP(X509_REQ *, X509_REQ_free);
DEFINE_CLEANUP(BIO *, BIO_free_all);

static enum err name_add(X509_NAME *name, const char *type, const char *value)
{
    if (!value)
        return ERR_OK;
    return X509_NAME_add_entry_by_txt(name, type, MBSTRING_UTF8, (const unsigned char *)value, -1,
                                      -1, 0)
               ? ERR_OK
               : ERR_INVALID;
}

static enum err subject_set(X509 *x, const char *organization, const char *common_name)
{
    _cleanup_(X509_NAME_freep) X509_NAME *name = X509_NAME_new();
    enum err e = name ? name_add(name, "O", organization) : ERR_NO_MEMORY;
    if (!e)
        e = name_add(name, "CN", common_name);
    if (!e && !X509_set_subject_name(x, name))
        e = ERR_NO_MEMORY;
    return e;
}

static int64_t end_within(X509 *parent, int64_t wanted_s)
{
    struct tm tm = {0};
    if (!parent || !ASN1_TIME_to_tm(X509_get0_notAfter(parent), &tm))
        return wanted_s;
    int64_t last_s = timegm(&tm);
    return wanted_s < last_s ? wanted_s : last_s;
}

static enum err ca_extensions(X509 *x, X509 *parent, int path_len)
{
    char constraints[48];
    if (path_len >= 0)
        snprintf(constraints, sizeof(constraints), "critical,CA:TRUE,pathlen:%d", path_len);
    else
        snprintf(constraints, sizeof(constraints), "critical,CA:TRUE");
    enum err e = build_extension(x, parent, NID_basic_constraints, constraints);
    if (!e)
        e = build_extension(x, parent, NID_key_usage, "critical,keyCertSign,cRLSign");
    if (!e)
        e = build_extension(x, parent, NID_subject_key_identifier, "hash");
    if (!e && parent)
        e = build_extension(x, parent, NID_authority_key_identifier, "keyid:always");
    return e;
}

static enum err ca_make(EVP_PKEY *key, const struct ca_request *rq, X509 *parent,
                        EVP_PKEY *signing_key, struct arena *arena, struct bytes *ret_der)
{
    uint8_t serial[SERIAL_BYTES];
    _cleanup_(cert_freep) X509 *x = X509_new();
    if (!x || !X509_set_pubkey(x, key))
        return ERR_NO_MEMORY;
    enum err e = build_begin(x, rq->now_s - BACKDATE_S,
                             end_within(parent, rq->now_s + rq->validity_s), serial);
    if (!e)
        e = subject_set(x, rq->organization, rq->common_name);
    if (!e && !X509_set_issuer_name(x, X509_get_subject_name(parent ? parent : x)))
        e = ERR_NO_MEMORY;
    if (!e)
        e = ca_extensions(x, parent, rq->path_len);
    return e ? e : build_sign(x, signing_key, arena, ret_der);
}

enum err ca_make_root(EVP_PKEY *key, const struct ca_request *rq, struct arena *arena,
                      struct bytes *ret_der)
{
    return ca_make(key, rq, NULL, key, arena, ret_der);
}

enum err ca_make_issuing(EVP_PKEY *key, const struct ca_request *rq, struct bytes parent_der,
                         EVP_PKEY *parent_key, struct arena *arena, struct bytes *ret_der)
{
    _cleanup_(cert_freep) X509 *parent = NULL;
    enum err e = cert_decode(parent_der, &parent);
    return e ? e : ca_make(key, rq, parent, parent_key, arena, ret_der);
}

enum err ca_make_cross(struct bytes subject_der, struct bytes parent_der, EVP_PKEY *parent_key,
                       int64_t now_s, struct arena *arena, struct bytes *ret_der)
{
    uint8_t serial[SERIAL_BYTES];
    _cleanup_(cert_freep) X509 *subject = NULL;
    _cleanup_(cert_freep) X509 *parent = NULL;
    _cleanup_(cert_freep) X509 *x = X509_new();
    enum err e = x ? cert_decode(subject_der, &subject) : ERR_NO_MEMORY;
    if (!e)
        e = cert_decode(parent_der, &parent);
    if (!e && (!X509_set_pubkey(x, X509_get0_pubkey(subject)) ||
               !X509_set_subject_name(x, X509_get_subject_name(subject)) ||
               !X509_set_issuer_name(x, X509_get_subject_name(parent))))
        e = ERR_NO_MEMORY;
    if (!e)
        e = build_begin(x, now_s - BACKDATE_S,
                        end_within(parent, cert_time_s(X509_get0_notAfter(subject))), serial);
    if (!e)
        e = ca_extensions(x, parent, -1);
    return e ? e : build_sign(x, parent_key, arena, ret_der);
}

static enum err pem_write(X509_REQ *req, struct arena *arena, const char **ret_pem)
{
    _cleanup_(BIO_free_allp) BIO *bio = BIO_new(BIO_s_mem());
    char *data = NULL;
    if (!bio || !PEM_write_bio_X509_REQ(bio, req))
        return ERR_NO_MEMORY;
    long len = BIO_get_mem_data(bio, &data);
    *ret_pem = arena_printf(arena, "%.*s", (int)len, data);
    return *ret_pem ? ERR_OK : ERR_NO_MEMORY;
}

/* What a certificate would have is what is asked for. */
enum err ca_make_request(EVP_PKEY *key, const struct ca_request *rq, struct arena *arena,
                         const char **ret_pem)
{
    _cleanup_(cert_freep) X509 *x = X509_new();
    _cleanup_(X509_REQ_freep) X509_REQ *req = X509_REQ_new();
    bool p384 = key_kind_of(key) == KEY_P384;
    if (!x || !req || !X509_set_pubkey(x, key) || !X509_REQ_set_pubkey(req, key))
        return ERR_NO_MEMORY;
    enum err e = subject_set(x, rq->organization, rq->common_name);
    if (!e)
        e = ca_extensions(x, NULL, rq->path_len);
    if (!e && (!X509_REQ_set_subject_name(req, X509_get_subject_name(x)) ||
               !X509_REQ_add_extensions(req, X509_get0_extensions(x))))
        e = ERR_NO_MEMORY;
    if (!e && !X509_REQ_sign(req, key, p384 ? EVP_sha384() : EVP_sha256()))
        e = ERR_SYSTEM;
    return e ? e : pem_write(req, arena, ret_pem);
}

static bool is_address(const char *name)
{
    uint8_t out[16];
    return inet_pton(AF_INET, name, out) == 1 || inet_pton(AF_INET6, name, out) == 1;
}

static enum err server_extensions(X509 *x, X509 *parent, const char *const *names, size_t count)
{
    _cleanup_(buf_donep) struct buf san = {0};
    buf_init(&san, MAX_SAN_TEXT_BYTES);
    for (size_t i = 0; i < count; i++) {
        if (strchr(names[i], ','))
            return ERR_INVALID;
        buf_printf(&san, "%s%s:%s", i > 0 ? "," : "", is_address(names[i]) ? "IP" : "DNS",
                   names[i]);
    }
    if (san.overflow || san.len == 0)
        return ERR_INVALID;
    enum err e = build_extension(x, parent, NID_basic_constraints, "critical,CA:FALSE");
    if (!e)
        e = build_extension(x, parent, NID_key_usage, "critical,digitalSignature");
    if (!e)
        e = build_extension(x, parent, NID_ext_key_usage, "serverAuth");
    if (!e)
        e = build_extension(x, parent, NID_subject_key_identifier, "hash");
    if (!e)
        e = build_extension(x, parent, NID_authority_key_identifier, "keyid:always");
    return e ? e : build_extension(x, parent, NID_subject_alt_name, buf_text(&san));
}

static enum err ra_extensions(X509 *x, X509 *parent)
{
    enum err e = build_extension(x, parent, NID_basic_constraints, "critical,CA:FALSE");
    if (!e)
        e = build_extension(x, parent, NID_key_usage, "critical,digitalSignature,keyEncipherment");
    if (!e)
        e = build_extension(x, parent, NID_ext_key_usage, "1.3.6.1.5.5.7.3.28");
    if (!e)
        e = build_extension(x, parent, NID_subject_key_identifier, "hash");
    return e ? e : build_extension(x, parent, NID_authority_key_identifier, "keyid:always");
}

enum err ca_make_ra(EVP_PKEY *key, const struct ca_request *rq, const struct issuer *issuer,
                    struct arena *arena, struct bytes *ret_der)
{
    uint8_t serial[SERIAL_BYTES];
    X509 *parent = issuer_certificate(issuer);
    _cleanup_(cert_freep) X509 *x = X509_new();
    if (!x || !X509_set_pubkey(x, key) || !X509_set_issuer_name(x, X509_get_subject_name(parent)))
        return ERR_NO_MEMORY;
    enum err e = build_begin(x, rq->now_s - BACKDATE_S,
                             end_within(parent, rq->now_s + rq->validity_s), serial);
    if (!e)
        e = subject_set(x, rq->organization, rq->common_name);
    if (!e)
        e = ra_extensions(x, parent);
    return e ? e : build_sign(x, issuer_key(issuer), arena, ret_der);
}

enum err ca_make_server(EVP_PKEY *key, const char *const *names, size_t name_count,
                        int64_t validity_s, int64_t now_s, struct bytes parent_der,
                        EVP_PKEY *parent_key, struct arena *arena, struct bytes *ret_der)
{
    uint8_t serial[SERIAL_BYTES];
    _cleanup_(cert_freep) X509 *parent = NULL;
    _cleanup_(cert_freep) X509 *x = X509_new();
    if (!x || !X509_set_pubkey(x, key) || name_count == 0)
        return name_count == 0 ? ERR_INVALID : ERR_NO_MEMORY;
    enum err e = cert_decode(parent_der, &parent);
    if (!e)
        e = build_begin(x, now_s - BACKDATE_S, end_within(parent, now_s + validity_s), serial);
    if (!e)
        e = subject_set(x, NULL, names[0]);
    if (!e && !X509_set_issuer_name(x, X509_get_subject_name(parent)))
        e = ERR_NO_MEMORY;
    if (!e)
        e = server_extensions(x, parent, names, name_count);
    return e ? e : build_sign(x, parent_key, arena, ret_der);
}
