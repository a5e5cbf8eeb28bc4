/* CAs and names out of configuration, for peers that are no devices. */
#include <openssl/x509v3.h>
#include <string.h>
#include <strings.h>

#include "pki/cert.h"
#include "pki/chain.h"

enum { MAX_ANCHORS = 64, ARENA_BYTES = MAX_ANCHORS * (CERT_MAX_BYTES + 64) };

DEFINE_CLEANUP(GENERAL_NAMES *, GENERAL_NAMES_free);

static enum err anchors_make(struct arena *arena, X509 *const *certs, size_t count,
                             struct trust **ret_trust)
{
    struct trust_ca cas[MAX_ANCHORS] = {0};
    for (size_t i = 0; i < count; i++) {
        enum err e = cert_encode(arena, certs[i], &cas[i].der);
        if (e)
            return e;
        cas[i].role = TRUST_ANCHOR;
        cas[i].id = (int64_t)i;
    }
    return trust_new(cas, count, ret_trust);
}

enum err trust_parse_pem(struct bytes pem, struct trust **ret_trust)
{
    X509 *certs[MAX_ANCHORS];
    size_t count = 0;
    enum err e = cert_parse_pem(pem, certs, MAX_ANCHORS, &count);
    if (e)
        return e;
    struct arena arena;
    arena_init(&arena, ARENA_BYTES);
    e = anchors_make(&arena, certs, count, ret_trust);
    arena_done(&arena);
    for (size_t i = 0; i < count; i++)
        cert_free(certs[i]);
    return e;
}

static bool is_listed(const char *names, struct bytes name)
{
    names += strspn(names, ", ");
    while (*names) {
        size_t len = strcspn(names, ", ");
        if (len == name.len && strncasecmp(names, (const char *)name.data, len) == 0)
            return true;
        names += len;
        names += strspn(names, ", ");
    }
    return false;
}

enum err cert_is_named(const struct cert_info *info, const char *names, bool *ret_named)
{
    bool named = info->cn && is_listed(names, bytes_text(info->cn));
    const unsigned char *p = info->san_der.data;
    _cleanup_(GENERAL_NAMES_freep) GENERAL_NAMES *san = NULL;
    if (info->san_der.len > 0 && !(san = d2i_GENERAL_NAMES(NULL, &p, (long)info->san_der.len)))
        return ERR_INVALID;
    for (int i = 0; san && i < sk_GENERAL_NAME_num(san); i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(san, i);
        if (g->type == GEN_DNS)
            named = named || is_listed(names, bytes_of(ASN1_STRING_get0_data(g->d.dNSName),
                                                       (size_t)ASN1_STRING_length(g->d.dNSName)));
    }
    *ret_named = named;
    return ERR_OK;
}
