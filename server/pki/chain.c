#include "pki/chain.h"

#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "pki/names.h"
#include "pki/trust.h"

enum { SECURITY_LEVEL = 2 /* 112 bits: RSA 2048, SHA-224 */, DAY_S = 86400 };

#define OID_EK_CERTIFICATE "2.23.133.8.1"

/* Whose certificate the leaf has to be. */
enum leaf_kind { LEAF_CLIENT, LEAF_ENDORSEMENT };

DEFINE_CLEANUP(X509_STORE_CTX *, X509_STORE_CTX_free);
DEFINE_CLEANUP(ASN1_OBJECT *, ASN1_OBJECT_free);

/* What the verification meets on its way; its callback fills it. */
struct walk {
    const struct trust *trust;
    int time_error; /* the first X509_V_ERR_ about time, X509_V_OK: none */
    X509 *timed;    /* the certificate it is about; borrowed */
    bool several;   /* another certificate's time is wrong too */
};

static void usage_freep(EXTENDED_KEY_USAGE **usage)
{
    EXTENDED_KEY_USAGE_free(*usage);
}

static void cert_stack_freep(STACK_OF(X509) * *s)
{
    sk_X509_free(*s);
}

static bool error_is_about_time(int error)
{
    return error == X509_V_ERR_CERT_HAS_EXPIRED || error == X509_V_ERR_CERT_NOT_YET_VALID;
}

static bool error_is_about_a_crl(int error)
{
    return error == X509_V_ERR_UNABLE_TO_GET_CRL || error == X509_V_ERR_CRL_HAS_EXPIRED ||
           error == X509_V_ERR_CRL_NOT_YET_VALID;
}

static const struct known_ca *ca_find(const struct trust *t, X509 *x);

/* Whether the certificate at hand may pass without a CRL that is in date: its issuer does not
 * require one, or it stands above all that is known. */
static bool may_lack_crl(const struct trust *t, X509_STORE_CTX *ctx)
{
    const STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(ctx);
    int issuer = X509_STORE_CTX_get_error_depth(ctx) + 1;
    const struct known_ca *ca =
        issuer < sk_X509_num(chain) ? ca_find(t, sk_X509_value(chain, issuer)) : NULL;
    return !ca || !ca->crl_required;
}

/* Time is judged last: an untrusted chain is told to be untrusted even when it has expired. */
static int walk_step(int good, X509_STORE_CTX *ctx)
{
    struct walk *w = X509_STORE_CTX_get_app_data(ctx);
    int error = X509_STORE_CTX_get_error(ctx);
    if (!good && error_is_about_a_crl(error))
        return may_lack_crl(w->trust, ctx);
    if (good || !error_is_about_time(error))
        return good;
    X509 *current = X509_STORE_CTX_get_current_cert(ctx);
    if (w->time_error == X509_V_OK) {
        w->time_error = error;
        w->timed = current;
    }
    w->several = w->several || w->timed != current;
    return 1;
}

static const char *hex_of(struct arena *arena, const ASN1_OCTET_STRING *s)
{
    if (!s)
        return "none";
    const char *hex =
        text_hex(arena, bytes_of(ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s)));
    return hex ? hex : "";
}

static const char *subject_of(struct arena *arena, X509 *x)
{
    const char *text = names_text(arena, X509_get_subject_name(x));
    return text ? text : "";
}

/* The issuer that was looked for, for the operator's list. */
static enum err issuer_note(struct arena *arena, X509 *x, struct chain_verdict *v)
{
    const ASN1_OCTET_STRING *aki = X509_get0_authority_key_id(x);
    v->unknown_issuer = names_text(arena, X509_get_issuer_name(x));
    if (!v->unknown_issuer)
        return ERR_NO_MEMORY;
    if (aki) {
        size_t len = (size_t)ASN1_STRING_length(aki);
        void *copy = arena_copy(arena, ASN1_STRING_get0_data(aki), len);
        if (!copy)
            return ERR_NO_MEMORY;
        v->unknown_aki = bytes_of(copy, len);
    }
    return names_der(arena, X509_get_issuer_name(x), &v->unknown_issuer_der);
}

static enum err issuer_unknown(struct arena *arena, X509 *x, int depth, struct chain_verdict *v,
                               struct fault *fault)
{
    enum err e = issuer_note(arena, x, v);
    if (e)
        return e;
    const char *aki = hex_of(arena, X509_get0_authority_key_id(x));
    bool self = X509_NAME_cmp(X509_get_subject_name(x), X509_get_issuer_name(x)) == 0;
    if (depth > 0 && !self)
        return fault_set(
            fault, FAULT_CHAIN_INCOMPLETE,
            "the issuer \"%.120s\" (AKI %.64s) of \"%.80s\" was neither sent nor is it registered",
            v->unknown_issuer, aki, subject_of(arena, x));
    return fault_set(fault, FAULT_CA_NOT_REGISTERED, "issuer \"%.160s\", AKI %.64s",
                     v->unknown_issuer, aki);
}

static enum err chain_refuse(struct arena *arena, X509_STORE_CTX *ctx, struct chain_verdict *v,
                             struct fault *fault)
{
    int error = X509_STORE_CTX_get_error(ctx);
    int depth = X509_STORE_CTX_get_error_depth(ctx);
    X509 *x = X509_STORE_CTX_get_current_cert(ctx);
    if (!x)
        x = X509_STORE_CTX_get0_cert(ctx);
    switch (error) {
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        return issuer_unknown(arena, x, depth, v, fault);
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE:
        return fault_set(fault, FAULT_CHAIN_SIGNATURE, "the signature on \"%.200s\" is wrong",
                         subject_of(arena, x));
    case X509_V_ERR_CERT_REVOKED:
        return fault_set(fault, FAULT_CERT_REVOKED, "\"%.200s\" is on the CRL of its CA",
                         subject_of(arena, x));
    case X509_V_ERR_UNABLE_TO_GET_CRL:
    case X509_V_ERR_CRL_HAS_EXPIRED:
    case X509_V_ERR_CRL_NOT_YET_VALID:
        return fault_set(fault, FAULT_CA_CRL_OVERDUE,
                         "the CA of \"%.200s\" requires a CRL, and none is in date",
                         subject_of(arena, x));
    default:
        return fault_set(fault, FAULT_CHAIN_INVALID, "\"%.200s\": %s", subject_of(arena, x),
                         X509_verify_cert_error_string(error));
    }
}

static enum err time_refuse(struct arena *arena, const struct walk *w, int64_t now_s,
                            struct fault *fault)
{
    char now[CLOCK_TEXT_BYTES], then[CLOCK_TEXT_BYTES];
    bool expired = w->time_error == X509_V_ERR_CERT_HAS_EXPIRED;
    int64_t at_s =
        cert_time_s(expired ? X509_get0_notAfter(w->timed) : X509_get0_notBefore(w->timed));
    int64_t distance_s = expired ? now_s - at_s : at_s - now_s;
    clock_text(now_s, now);
    clock_text(at_s, then);
    return fault_set(fault, expired ? FAULT_CERT_EXPIRED : FAULT_CERT_NOT_YET,
                     "\"%.160s\" %s %s (%lld days and %lld s %s); the server's time is %s",
                     subject_of(arena, w->timed), expired ? "expired at" : "is valid from", then,
                     (long long)(distance_s / DAY_S), (long long)(distance_s % DAY_S),
                     expired ? "ago" : "ahead", now);
}

static const struct known_ca *ca_find(const struct trust *t, X509 *x)
{
    uint8_t spki[SHA256_BYTES];
    const struct known_ca *found = NULL;
    if (cert_key_fingerprint(x, spki))
        return NULL;
    for (size_t i = 0; i < t->count; i++) {
        if (memcmp(t->cas[i].spki_sha256, spki, sizeof(spki)) != 0)
            continue;
        if (t->cas[i].role == TRUST_REFUSED)
            return &t->cas[i];
        if (X509_cmp(t->cas[i].cert, x) == 0 || !found)
            found = &t->cas[i];
    }
    return found;
}

/* The anchor nearest to the leaf; no CA on the way may be out of service. */
static enum err anchor_find(const struct trust *t, struct arena *arena, X509_STORE_CTX *ctx,
                            struct chain_verdict *v, struct fault *fault)
{
    const STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(ctx);
    const struct known_ca *anchor = NULL;
    for (int i = 1; i < sk_X509_num(chain); i++) {
        const struct known_ca *ca = ca_find(t, sk_X509_value(chain, i));
        if (ca && ca->role == TRUST_REFUSED)
            return fault_set(fault, FAULT_CA_NOT_REGISTERED, "CA \"%.200s\" was deactivated here",
                             subject_of(arena, sk_X509_value(chain, i)));
        if (ca && ca->role == TRUST_ANCHOR && !anchor)
            anchor = ca;
    }
    if (!anchor)
        return fault_set(fault, FAULT_CHAIN_INVALID,
                         "the certificate is one of a CA, not of a device");
    v->anchor_id = anchor->id;
    return ERR_OK;
}

/* RFC 5280 4.2.1.12: a leaf that lists purposes must list this one. */
static enum err client_check(X509 *leaf, struct fault *fault)
{
    uint32_t usage = X509_get_extended_key_usage(leaf);
    if (X509_get_extension_flags(leaf) & EXFLAG_XKUSAGE && !(usage & (XKU_SSL_CLIENT | XKU_ANYEKU)))
        return fault_set(fault, FAULT_CHAIN_INVALID,
                         "the extended key usage does not include clientAuth");
    return ERR_OK;
}

/* An endorsement key's certificate is good for nothing else, and says so. */
static enum err endorsement_check(X509 *leaf, struct fault *fault)
{
    _cleanup_(ASN1_OBJECT_freep) ASN1_OBJECT *purpose = OBJ_txt2obj(OID_EK_CERTIFICATE, 1);
    _cleanup_(usage_freep) EXTENDED_KEY_USAGE *usage =
        X509_get_ext_d2i(leaf, NID_ext_key_usage, NULL, NULL);
    bool found = false;
    if (!purpose)
        return ERR_NO_MEMORY;
    for (int i = 0; i < sk_ASN1_OBJECT_num(usage); i++)
        found = found || OBJ_cmp(sk_ASN1_OBJECT_value(usage, i), purpose) == 0;
    if (!found)
        return fault_set(fault, FAULT_CHAIN_INVALID,
                         "the extended key usage does not include tcg-kp-EKCertificate");
    return ERR_OK;
}

static enum err leaf_check(X509 *leaf, enum leaf_kind kind, struct fault *fault)
{
    if (X509_check_ca(leaf) == 1)
        return fault_set(fault, FAULT_CHAIN_INVALID,
                         "the certificate is one of a CA, not of a device");
    switch (kind) {
    case LEAF_CLIENT:
        return client_check(leaf, fault);
    case LEAF_ENDORSEMENT:
        return endorsement_check(leaf, fault);
    }
    return ERR_SYSTEM;
}

/* Borrowed certificates that complete the chain: what the client sent, then the helpers. */
static STACK_OF(X509) * untrusted_new(const struct trust *t, X509 *const *sent, size_t count)
{
    STACK_OF(X509) *stack = sk_X509_new_null();
    bool good = stack != NULL;
    for (size_t i = 1; i < count && good; i++)
        good = sk_X509_push(stack, sent[i]) > 0;
    for (size_t i = 0; i < t->count && good; i++) {
        if (t->cas[i].role == TRUST_HELPER)
            good = sk_X509_push(stack, t->cas[i].cert) > 0;
    }
    if (!good) {
        sk_X509_free(stack);
        stack = NULL;
    }
    return stack;
}

static enum err walk_run(const struct trust *t, struct arena *arena, X509 *const *certs,
                         size_t count, int64_t now_s, struct chain_verdict *v, struct fault *fault)
{
    struct walk w = {.trust = t, .time_error = X509_V_OK};
    _cleanup_(X509_STORE_CTX_freep) X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    _cleanup_(cert_stack_freep) STACK_OF(X509) *untrusted = untrusted_new(t, certs, count);
    if (!ctx || !untrusted || !X509_STORE_CTX_init(ctx, t->store, certs[0], untrusted))
        return ERR_NO_MEMORY;
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_time(param, now_s);
    X509_VERIFY_PARAM_set_depth(param, CERT_MAX_CHAIN);
    X509_VERIFY_PARAM_set_auth_level(param, SECURITY_LEVEL);
    if (t->judges_crls)
        X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    X509_STORE_CTX_set_app_data(ctx, &w);
    X509_STORE_CTX_set_verify_cb(ctx, walk_step);
    if (X509_verify_cert(ctx) != 1)
        return chain_refuse(arena, ctx, v, fault);
    enum err e = anchor_find(t, arena, ctx, v, fault);
    if (e)
        return e;
    if (w.time_error == X509_V_OK)
        return ERR_OK;
    if (w.time_error == X509_V_ERR_CERT_HAS_EXPIRED && w.timed == certs[0] && !w.several)
        v->leaf_expired_s = now_s - v->leaf.not_after_s;
    return time_refuse(arena, &w, now_s, fault);
}

static enum err chain_judge(const struct trust *t, struct arena *arena, const struct bytes *chain,
                            size_t count, int64_t now_s, enum leaf_kind kind,
                            struct chain_verdict *ret_verdict, struct fault *fault)
{
    X509 *certs[CERT_MAX_CHAIN] = {0};
    size_t n = 0;
    enum err e = count >= 1 && count <= CERT_MAX_CHAIN ? ERR_OK : ERR_INVALID;
    while (n < count && !e) {
        e = cert_decode(chain[n], &certs[n]);
        n += !e;
    }
    if (!e)
        e = cert_describe(arena, certs[0], &ret_verdict->leaf);
    if (e == ERR_INVALID)
        e = fault_set(fault, FAULT_CHAIN_MALFORMED, "certificate %zu of %zu does not parse",
                      n + (n < count), count);
    if (!e)
        e = leaf_check(certs[0], kind, fault);
    if (!e)
        e = walk_run(t, arena, certs, count, now_s, ret_verdict, fault);
    for (size_t i = 0; i < n; i++)
        cert_free(certs[i]);
    return e;
}

enum err chain_verify_generic(const struct trust *t, struct arena *arena, const struct bytes *chain,
                              size_t count, int64_t now_s, struct chain_verdict *ret_verdict,
                              struct fault *fault)
{
    return chain_judge(t, arena, chain, count, now_s, LEAF_CLIENT, ret_verdict, fault);
}

enum err chain_verify_endorsement(const struct trust *t, struct arena *arena,
                                  const struct bytes *chain, size_t count, int64_t now_s,
                                  struct chain_verdict *ret_verdict, struct fault *fault)
{
    return chain_judge(t, arena, chain, count, now_s, LEAF_ENDORSEMENT, ret_verdict, fault);
}

enum err chain_verify(const struct trust *t, struct arena *arena, const struct bytes *chain,
                      size_t count, int64_t now_s, struct chain_verdict *ret_verdict,
                      struct fault *fault)
{
    if (chain_verify_plain(t, arena, chain, count, now_s, ret_verdict))
        return ERR_OK;
    return chain_verify_generic(t, arena, chain, count, now_s, ret_verdict, fault);
}
