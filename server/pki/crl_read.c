#include "pki/crl_read.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/cleanup.h"
#include "pki/cert.h"

enum { MIN_SIGNATURE_BITS = 112, MAX_NUMBER_BYTES = 20 };

DEFINE_CLEANUP(X509_CRL *, X509_CRL_free);
DEFINE_CLEANUP(BIO *, BIO_free_all);
DEFINE_CLEANUP(ASN1_INTEGER *, ASN1_INTEGER_free);
DEFINE_CLEANUP(ASN1_ENUMERATED *, ASN1_ENUMERATED_free);
DEFINE_CLEANUP(AUTHORITY_KEYID *, AUTHORITY_KEYID_free);

/* PEM text begins with printable characters, DER with a SEQUENCE. */
static X509_CRL *crl_decode(struct bytes text, size_t max_bytes)
{
    const unsigned char *at = text.data;
    X509_CRL *crl = NULL;
    if (text.len == 0 || text.len > max_bytes)
        return NULL;
    if (text.data[0] != (V_ASN1_SEQUENCE | V_ASN1_CONSTRUCTED)) {
        _cleanup_(BIO_free_allp) BIO *bio = BIO_new_mem_buf(text.data, (int)text.len);
        crl = bio ? PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL) : NULL;
    } else {
        crl = d2i_X509_CRL(NULL, &at, (long)text.len);
        if (crl && at != text.data + text.len) {
            X509_CRL_free(crl);
            crl = NULL;
        }
    }
    ERR_clear_error();
    return crl;
}

static bool has_critical(const X509_CRL *crl)
{
    for (int i = 0; i < X509_CRL_get_ext_count(crl); i++) {
        if (X509_EXTENSION_get_critical(X509_CRL_get_ext(crl, i)))
            return true;
    }
    return false;
}

static int reason_of(X509_REVOKED *r)
{
    int critical = 0;
    _cleanup_(ASN1_ENUMERATED_freep) ASN1_ENUMERATED *code =
        X509_REVOKED_get_ext_d2i(r, NID_crl_reason, &critical, NULL);
    long value = code ? ASN1_ENUMERATED_get(code) : CRL_REASON_UNSPECIFIED;
    return value >= 0 && value <= CRL_REASON_AA_COMPROMISE ? (int)value : CRL_REASON_UNSPECIFIED;
}

static enum err row_take(X509_REVOKED *r, struct arena *arena, struct revoked *row)
{
    const ASN1_INTEGER *number = X509_REVOKED_get0_serialNumber(r);
    int len = ASN1_STRING_length(number);
    if (ASN1_STRING_type(number) != V_ASN1_INTEGER || len < 1 || len > CERT_SERIAL_MAX_BYTES)
        return ERR_INVALID;
    const void *copy = arena_copy(arena, ASN1_STRING_get0_data(number), (size_t)len);
    *row = (struct revoked){
        .serial_number = bytes_of(copy, (size_t)len),
        .revoked_s = cert_time_s(X509_REVOKED_get0_revocationDate(r)),
        .reason = reason_of(r),
    };
    return copy ? ERR_OK : ERR_NO_MEMORY;
}

static enum err rows_take(X509_CRL *crl, struct arena *arena, struct crl_info *info)
{
    STACK_OF(X509_REVOKED) *list = X509_CRL_get_REVOKED(crl);
    int count = list ? sk_X509_REVOKED_num(list) : 0;
    info->rows = arena_alloc(arena, ((size_t)count + 1) * sizeof(*info->rows));
    if (!info->rows)
        return ERR_NO_MEMORY;
    for (int i = 0; i < count; i++) {
        enum err e = row_take(sk_X509_REVOKED_value(list, i), arena, &info->rows[i]);
        if (e)
            return e;
    }
    info->count = (size_t)count;
    return ERR_OK;
}

static enum err number_take(const X509_CRL *crl, struct arena *arena, struct bytes *ret_number)
{
    int critical = 0;
    _cleanup_(ASN1_INTEGER_freep) ASN1_INTEGER *number =
        X509_CRL_get_ext_d2i(crl, NID_crl_number, &critical, NULL);
    if (!number)
        return critical == -1 ? ERR_OK : ERR_INVALID; /* -1: it is not there */
    int len = ASN1_STRING_length(number);
    if (ASN1_STRING_type(number) != V_ASN1_INTEGER || len < 1 || len > MAX_NUMBER_BYTES)
        return ERR_INVALID;
    const void *copy = arena_copy(arena, ASN1_STRING_get0_data(number), (size_t)len);
    *ret_number = bytes_of(copy, (size_t)len);
    return copy ? ERR_OK : ERR_NO_MEMORY;
}

static enum err der_take(X509_CRL *crl, struct arena *arena, struct bytes *ret_der)
{
    unsigned char *der = NULL;
    int len = i2d_X509_CRL(crl, &der);
    const void *copy = len > 0 ? arena_copy(arena, der, (size_t)len) : NULL;
    OPENSSL_free(der);
    *ret_der = bytes_of(copy, copy ? (size_t)len : 0);
    return copy ? ERR_OK : ERR_NO_MEMORY;
}

/* own: also one that covers only some certificates. */
static enum err crl_take(X509_CRL *crl, bool own, struct arena *arena, struct crl_info *ret_info,
                         const char **ret_why)
{
    *ret_info = (struct crl_info){0};
    if (!crl)
        return ERR_INVALID;
    const ASN1_TIME *next = X509_CRL_get0_nextUpdate(crl);
    ret_info->this_update_s = cert_time_s(X509_CRL_get0_lastUpdate(crl));
    ret_info->next_update_s = next ? cert_time_s(next) : 0;
    *ret_why = "it has no nextUpdate after its thisUpdate";
    if (ret_info->next_update_s <= ret_info->this_update_s || ret_info->this_update_s <= 0)
        return ERR_INVALID;
    *ret_why = "it covers only some certificates (delta, partitioned or indirect), or has another "
               "critical extension";
    if (!own && has_critical(crl))
        return ERR_INVALID;
    *ret_why = "an entry or its number cannot be read";
    enum err e = rows_take(crl, arena, ret_info);
    if (!e)
        e = number_take(crl, arena, &ret_info->number);
    return e ? e : der_take(crl, arena, &ret_info->der);
}

enum err crl_read(struct bytes text, struct arena *arena, struct crl_info *ret_info,
                  const char **ret_why)
{
    _cleanup_(X509_CRL_freep) X509_CRL *crl = crl_decode(text, CRL_MAX_BYTES);
    *ret_why = "it is no CRL that can be read, PEM or DER, of at most 4 MiB";
    return crl_take(crl, false, arena, ret_info, ret_why);
}

enum err crl_read_own(struct bytes text, struct arena *arena, struct crl_info *ret_info,
                      const char **ret_why)
{
    _cleanup_(X509_CRL_freep) X509_CRL *crl = crl_decode(text, CRL_OWN_MAX_BYTES);
    *ret_why = "it is no CRL that can be read, PEM or DER, of at most 256 MiB";
    return crl_take(crl, true, arena, ret_info, ret_why);
}

/* What OpenSSL asks before it looks at a CRL: one that it passed over would count for nothing. */
static bool will_be_used(const X509_CRL *crl, X509 *ca)
{
    _cleanup_(AUTHORITY_KEYID_freep) AUTHORITY_KEYID *akid =
        X509_CRL_get_ext_d2i(crl, NID_authority_key_identifier, NULL, NULL);
    return (X509_get_key_usage(ca) & KU_CRL_SIGN) != 0 &&
           (!akid || X509_check_akid(ca, akid) == X509_V_OK);
}

bool crl_is_of(struct bytes der, X509 *ca)
{
    int digest = NID_undef, bits = 0;
    EVP_PKEY *key = X509_get0_pubkey(ca);
    _cleanup_(X509_CRL_freep) X509_CRL *crl = crl_decode(der, CRL_OWN_MAX_BYTES);
    if (!crl || !key || X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_subject_name(ca)) != 0 ||
        !will_be_used(crl, ca) || X509_CRL_verify(crl, key) != 1) {
        ERR_clear_error();
        return false;
    }
    int nid = X509_CRL_get_signature_nid(crl);
    if (!OBJ_find_sigid_algs(nid, &digest, NULL) || digest == NID_undef)
        return nid == NID_ED25519 || nid == NID_ED448 || nid == NID_rsassaPss;
    const EVP_MD *md = EVP_get_digestbynid(digest);
    bits = md ? EVP_MD_get_size(md) * 4 : 0; /* collisions take half of the digest's bits */
    return digest != NID_sha1 && digest != NID_md5_sha1 && bits >= MIN_SIGNATURE_BITS;
}
