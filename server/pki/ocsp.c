#include "pki/ocsp.h"

#include <openssl/ocsp.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "pki/build.h"
#include "pki/cert.h"
#include "pki/key.h"

enum { BACKDATE_S = 3600, MAX_RESPONSE_BYTES = 65536, SCRATCH_BYTES = 65536 };

DEFINE_CLEANUP(OCSP_REQUEST *, OCSP_REQUEST_free);
DEFINE_CLEANUP(OCSP_BASICRESP *, OCSP_BASICRESP_free);
DEFINE_CLEANUP(OCSP_RESPONSE *, OCSP_RESPONSE_free);
DEFINE_CLEANUP(OCSP_CERTID *, OCSP_CERTID_free);
DEFINE_CLEANUP(ASN1_TIME *, ASN1_TIME_free);
DEFINE_CLEANUP(X509_NAME *, X509_NAME_free);

struct ocsp_responder {
    X509 *cert;
    EVP_PKEY *key;
    int64_t not_after_s;
};

static OCSP_CERTID *id_decode(struct bytes der)
{
    const unsigned char *at = der.data;
    return d2i_OCSP_CERTID(NULL, &at, (long)der.len);
}

/* OpenSSL reads parameters of the digest that it cannot write again, such as an end-of-contents. */
static bool id_lasts(struct bytes der)
{
    _cleanup_(OCSP_CERTID_freep) OCSP_CERTID *id = id_decode(der);
    return id != NULL;
}

static enum err asked_take(OCSP_ONEREQ *one, struct arena *arena, struct ocsp_asked *ret)
{
    OCSP_CERTID *id = OCSP_onereq_get0_id(one);
    ASN1_INTEGER *serial = NULL;
    unsigned char *der = NULL;
    if (!id || !OCSP_id_get0_info(NULL, NULL, NULL, &serial, id))
        return ERR_INVALID;
    int len = ASN1_STRING_length(serial);
    if (ASN1_STRING_type(serial) != V_ASN1_INTEGER || len < 1 || len > CERT_SERIAL_MAX_BYTES)
        return ERR_INVALID;
    int size = i2d_OCSP_CERTID(id, &der);
    const void *id_copy = size > 0 ? arena_copy(arena, der, (size_t)size) : NULL;
    const void *copy = arena_copy(arena, ASN1_STRING_get0_data(serial), (size_t)len);
    OPENSSL_free(der);
    if (!id_copy || !copy)
        return ERR_NO_MEMORY;
    *ret = (struct ocsp_asked){bytes_of(id_copy, (size_t)size), bytes_of(copy, (size_t)len)};
    return id_lasts(ret->id) ? ERR_OK : ERR_INVALID;
}

/* The extension's value is an OCTET STRING in the OCTET STRING (RFC 8954 2.1). */
static enum err nonce_take(OCSP_REQUEST *rq, struct arena *arena, struct bytes *ret_nonce)
{
    int at = OCSP_REQUEST_get_ext_by_NID(rq, NID_id_pkix_OCSP_Nonce, -1);
    if (at < 0)
        return ERR_OK;
    const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(OCSP_REQUEST_get_ext(rq, at));
    const unsigned char *der = ASN1_STRING_get0_data(value);
    ASN1_OCTET_STRING *inner = d2i_ASN1_OCTET_STRING(NULL, &der, ASN1_STRING_length(value));
    int len = inner ? ASN1_STRING_length(inner) : 0;
    bool good = len >= 1 && len <= OCSP_MAX_NONCE_BYTES;
    const void *copy = good ? arena_copy(arena, ASN1_STRING_get0_data(inner), (size_t)len) : NULL;
    ASN1_OCTET_STRING_free(inner);
    if (!good)
        return ERR_INVALID;
    *ret_nonce = bytes_of(copy, (size_t)len);
    return copy ? ERR_OK : ERR_NO_MEMORY;
}

enum err ocsp_request_parse(struct bytes der, struct arena *arena, struct ocsp_request *ret)
{
    const unsigned char *at = der.data;
    *ret = (struct ocsp_request){0};
    if (der.len == 0 || der.len > OCSP_MAX_REQUEST_BYTES)
        return ERR_INVALID;
    _cleanup_(OCSP_REQUEST_freep) OCSP_REQUEST *rq = d2i_OCSP_REQUEST(NULL, &at, (long)der.len);
    int count = rq && at == der.data + der.len ? OCSP_request_onereq_count(rq) : 0;
    if (count < 1 || count > OCSP_MAX_ASKED)
        return ERR_INVALID;
    enum err e = nonce_take(rq, arena, &ret->nonce);
    for (int i = 0; i < count && !e; i++)
        e = asked_take(OCSP_request_onereq_get0(rq, i), arena, &ret->asked[i]);
    ret->count = (size_t)count;
    return e;
}

bool ocsp_asks_for(const struct ocsp_asked *asked, const struct issuer *issuer)
{
    ASN1_OBJECT *digest = NULL;
    ASN1_INTEGER *serial = NULL;
    X509 *cert = issuer_certificate(issuer);
    _cleanup_(OCSP_CERTID_freep) OCSP_CERTID *id = id_decode(asked->id);
    if (!id || !OCSP_id_get0_info(NULL, &digest, NULL, &serial, id))
        return false;
    int nid = OBJ_obj2nid(digest);
    if (nid != NID_sha1 && nid != NID_sha256)
        return false;
    _cleanup_(OCSP_CERTID_freep) OCSP_CERTID *own =
        OCSP_cert_id_new(EVP_get_digestbynid(nid), X509_get_subject_name(cert),
                         X509_get0_pubkey_bitstr(cert), serial);
    return own && OCSP_id_issuer_cmp(id, own) == 0;
}

static enum err names_set(X509 *x, X509 *issuer)
{
    _cleanup_(X509_NAME_freep) X509_NAME *name = X509_NAME_new();
    const unsigned char *cn = (const unsigned char *)"OCSP responder";
    if (!name || !X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, cn, -1, -1, 0) ||
        !X509_set_subject_name(x, name) || !X509_set_issuer_name(x, X509_get_subject_name(issuer)))
        return ERR_NO_MEMORY;
    return ERR_OK;
}

static enum err extensions_set(X509 *x, X509 *issuer)
{
    static const struct {
        int nid;
        const char *value;
    } rows[] = {{NID_basic_constraints, "critical,CA:FALSE"},
                {NID_key_usage, "critical,digitalSignature"},
                {NID_ext_key_usage, "OCSPSigning"},
                {NID_id_pkix_OCSP_noCheck, "NULL"},
                {NID_subject_key_identifier, "hash"},
                {NID_authority_key_identifier, "keyid:always"}};
    enum err e = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(rows) && !e; i++)
        e = build_extension(x, issuer, rows[i].nid, rows[i].value);
    return e;
}

static enum err certificate_make(struct ocsp_responder *r, const struct issuer *issuer,
                                 int64_t now_s)
{
    _cleanup_(arena_donep) struct arena arena;
    uint8_t serial[BUILD_SERIAL_BYTES];
    struct bytes der;
    X509 *ca = issuer_certificate(issuer);
    arena_init(&arena, SCRATCH_BYTES);
    r->cert = X509_new();
    if (!r->cert || !X509_set_pubkey(r->cert, r->key))
        return ERR_NO_MEMORY;
    enum err e = build_begin(r->cert, now_s - BACKDATE_S, r->not_after_s, serial);
    if (!e)
        e = names_set(r->cert, ca);
    if (!e)
        e = extensions_set(r->cert, ca);
    return e ? e : build_sign(r->cert, issuer_key(issuer), &arena, &der);
}

enum err ocsp_responder_new(const struct issuer *issuer, int64_t now_s, int64_t life_s,
                            struct ocsp_responder **ret_responder)
{
    int64_t ends_s = issuer_not_after_s(issuer);
    _cleanup_(ocsp_responder_freep) struct ocsp_responder *r = calloc(1, sizeof(*r));
    if (!r)
        return ERR_NO_MEMORY;
    r->not_after_s = now_s + life_s < ends_s ? now_s + life_s : ends_s;
    enum err e = key_generate(KEY_P256, &r->key);
    if (!e)
        e = certificate_make(r, issuer, now_s);
    if (!e)
        *ret_responder = TAKE_PTR(r);
    return e;
}

void ocsp_responder_free(struct ocsp_responder *r)
{
    if (!r)
        return;
    cert_free(r->cert);
    key_free(r->key);
    free(r);
}

int64_t ocsp_responder_not_after_s(const struct ocsp_responder *r)
{
    return r->not_after_s;
}

struct times {
    ASN1_TIME *now;
    ASN1_TIME *next;
};

static enum err status_add(OCSP_BASICRESP *basic, const struct ocsp_asked *asked,
                           const struct ocsp_status *s, const struct times *times)
{
    static const int states[] = {[OCSP_GOOD] = V_OCSP_CERTSTATUS_GOOD,
                                 [OCSP_REVOKED] = V_OCSP_CERTSTATUS_REVOKED,
                                 [OCSP_UNKNOWN] = V_OCSP_CERTSTATUS_UNKNOWN};
    _cleanup_(OCSP_CERTID_freep) OCSP_CERTID *id = id_decode(asked->id);
    _cleanup_(ASN1_TIME_freep) ASN1_TIME *at = ASN1_GENERALIZEDTIME_set(NULL, (time_t)s->revoked_s);
    int reason = s->reason == 0 ? OCSP_REVOKED_STATUS_NOSTATUS : s->reason;
    return id && at &&
                   OCSP_basic_add1_status(basic, id, states[s->state], reason, at, times->now,
                                          times->next)
               ? ERR_OK
               : ERR_NO_MEMORY;
}

static enum err basic_fill(OCSP_BASICRESP *basic, const struct ocsp_request *request,
                           const struct ocsp_status *statuses, int64_t now_s, int64_t next_s)
{
    uint8_t nonce[OCSP_MAX_NONCE_BYTES];
    _cleanup_(ASN1_TIME_freep) ASN1_TIME *now = ASN1_GENERALIZEDTIME_set(NULL, (time_t)now_s);
    _cleanup_(ASN1_TIME_freep) ASN1_TIME *next = ASN1_GENERALIZEDTIME_set(NULL, (time_t)next_s);
    const struct times times = {now, next};
    enum err e = now && next ? ERR_OK : ERR_NO_MEMORY;
    for (size_t i = 0; i < request->count && !e; i++)
        e = status_add(basic, &request->asked[i], &statuses[i], &times);
    if (e || request->nonce.len == 0)
        return e;
    memcpy(nonce, request->nonce.data, request->nonce.len);
    return OCSP_basic_add1_nonce(basic, nonce, (int)request->nonce.len) ? ERR_OK : ERR_NO_MEMORY;
}

static enum err encode(OCSP_BASICRESP *basic, struct arena *arena, struct bytes *ret_der)
{
    unsigned char *der = NULL;
    _cleanup_(OCSP_RESPONSE_freep) OCSP_RESPONSE *response =
        OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    int len = response ? i2d_OCSP_RESPONSE(response, &der) : -1;
    const void *copy =
        len > 0 && len <= MAX_RESPONSE_BYTES ? arena_copy(arena, der, (size_t)len) : NULL;
    OPENSSL_free(der);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret_der = bytes_of(copy, (size_t)len);
    return ERR_OK;
}

enum err ocsp_respond(const struct ocsp_responder *r, const struct ocsp_request *request,
                      const struct ocsp_status *statuses, int64_t now_s, int64_t next_update_s,
                      struct arena *arena, struct bytes *ret_der)
{
    _cleanup_(OCSP_BASICRESP_freep) OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    if (!basic)
        return ERR_NO_MEMORY;
    enum err e = basic_fill(basic, request, statuses, now_s, next_update_s);
    if (e)
        return e;
    if (!OCSP_basic_sign(basic, r->cert, r->key, EVP_sha256(), NULL, OCSP_RESPID_KEY))
        return ERR_SYSTEM;
    return encode(basic, arena, ret_der);
}

struct bytes ocsp_failed(enum ocsp_failure failure)
{
    static const uint8_t malformed[] = {0x30, 3, 0x0a, 1, OCSP_MALFORMED};
    static const uint8_t internal[] = {0x30, 3, 0x0a, 1, OCSP_INTERNAL};
    static const uint8_t later[] = {0x30, 3, 0x0a, 1, OCSP_TRY_LATER};
    static const uint8_t unauthorized[] = {0x30, 3, 0x0a, 1, OCSP_UNAUTHORIZED};
    switch (failure) {
    case OCSP_MALFORMED:
        return bytes_of(malformed, sizeof(malformed));
    case OCSP_TRY_LATER:
        return bytes_of(later, sizeof(later));
    case OCSP_UNAUTHORIZED:
        return bytes_of(unauthorized, sizeof(unauthorized));
    case OCSP_INTERNAL:
        break;
    }
    return bytes_of(internal, sizeof(internal));
}
