/* What clients ask before they enrol: what is understood here, and whose certificates to trust. */
#include <string.h>

#include "base/cleanup.h"
#include "enroll/catalog.h"
#include "pki/cert.h"
#include "proto/scep/internal.h"

enum { MAX_CAPS_BYTES = 256, MAX_CERTS = 16, MAX_OWN = 48 };

/* The CAs above a certificate, nearest first. */
static size_t chain_above(const struct snapshot *s, struct bytes issuer, struct bytes *ret)
{
    return snapshot_chain(s, issuer, ret, MAX_CERTS / 2);
}

static bool is_among(struct bytes der, const struct bytes *set, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes_equal(der, set[i]))
            return true;
    }
    return false;
}

/* The CAs of ours that clients have to know by now: the RA's, then those that sign for the label.
 */
static size_t present(const struct service *service, const struct exchange *x,
                      const struct snapshot *s, struct bytes *ret)
{
    const char *label = x->args[0] ? x->args[0] : service->default_template;
    const struct catalog_template *t = label ? snapshot_template(s, label) : NULL;
    const struct issuer *issuer =
        snapshot_issuer(s, t ? template_settings(t->compiled)->issuer : NULL);
    const struct catalog_ca *ca = issuer ? snapshot_ca(s, issuer_id(issuer)) : NULL;
    struct bytes more[MAX_CERTS / 2];
    size_t count = chain_above(s, scep_ra_issuer(service->scep), ret);
    size_t others = ca ? chain_above(s, ca->subject_der, more) : 0;
    for (size_t i = 0; i < others; i++) {
        if (!is_among(more[i], ret, count))
            ret[count++] = more[i];
    }
    return count;
}

/* A change of CA has begun: roots and issuing CAs of ours that nothing has been signed with for
 * these clients yet. */
static size_t coming(const struct service *service, const struct exchange *x,
                     const struct snapshot *s, struct bytes *ret)
{
    struct bytes known[MAX_CERTS], own[MAX_OWN];
    size_t known_count = present(service, x, s, known), count = 0;
    size_t own_count = snapshot_own_cas(s, own, MAX_OWN);
    for (size_t i = 0; i < own_count && count < MAX_CERTS; i++) {
        if (!is_among(own[i], known, known_count))
            ret[count++] = own[i];
    }
    return count;
}

static enum err snapshot_take(struct service *service, struct exchange *x, struct snapshot **ret)
{
    return catalog_get(service->catalog, ret)
               ? fault_set(&x->fault, FAULT_DB_UNAVAILABLE, "the catalog was never loaded")
               : ERR_OK;
}

/* Section 3.5.2. SHA-384 is no keyword of the RFC's: strongSwan before 5.9.11 believes in AES only
 * beside it. */
enum err scep_caps(struct service *service, struct exchange *x)
{
    _cleanup_(snapshot_dropp) struct snapshot *s = NULL;
    _cleanup_(buf_donep) struct buf b = {0};
    struct bytes next[MAX_CERTS];
    enum err e = snapshot_take(service, x, &s);
    if (e)
        return e;
    buf_init(&b, MAX_CAPS_BYTES);
    buf_add_text(&b, "AES\n");
    if (service->scep_options.des3)
        buf_add_text(&b, "DES3\n");
    if (coming(service, x, s, next) > 0)
        buf_add_text(&b, "GetNextCACert\n");
    buf_add_text(&b, "POSTPKIOperation\nRenewal\nSCEPStandard\n");
    if (service->scep_options.sha1)
        buf_add_text(&b, "SHA-1\n");
    buf_add_text(&b, "SHA-256\nSHA-384\nSHA-512\n");
    return exchange_reply_buf(x, 200, "text/plain", &b);
}

/* Section 4.2: the RA's certificate, which messages are for and answers are signed with, then the
 * CAs. */
enum err scep_ca_cert(struct service *service, struct exchange *x)
{
    _cleanup_(snapshot_dropp) struct snapshot *s = NULL;
    struct bytes certs[MAX_CERTS + 1], cms;
    enum err e = snapshot_take(service, x, &s);
    if (e)
        return e;
    certs[0] = scep_ra_certificate(service->scep);
    e = cms_certs_only(x->arena, certs, 1 + present(service, x, s, certs + 1), &cms);
    if (!e)
        exchange_reply(x, 200, "application/x-x509-ca-ra-cert", cms);
    return e;
}

/* Section 4.7. */
enum err scep_next_ca_cert(struct service *service, struct exchange *x)
{
    _cleanup_(snapshot_dropp) struct snapshot *s = NULL;
    struct bytes certs[MAX_CERTS], cms, signed_;
    enum err e = snapshot_take(service, x, &s);
    if (e)
        return e;
    size_t count = coming(service, x, s, certs);
    if (count == 0)
        return fault_set(&x->fault, FAULT_SCEP_NO_NEXT, "all CAs are in GetCACert");
    e = cms_certs_only(x->arena, certs, count, &cms);
    if (!e)
        e = scep_signed_certs(service->scep, x->arena, cms, &signed_);
    if (!e)
        exchange_reply(x, 200, "application/x-x509-next-ca-cert", signed_);
    return e;
}
