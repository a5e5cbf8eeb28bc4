#include "enroll/unknown_issuer.h"

#include <string.h>

#include "base/clock.h"
#include "base/limit.h"
#include "base/log.h"
#include "pki/chain_top.h"

/* The issuer's own certificate. An operator may register it with one command, so it must be the one
 * that the device's certificate leads to. */
static struct bytes sent_issuer(const struct enrolment *e)
{
    struct bytes der = {0};
    _cleanup_(cert_freep) X509 *x = NULL;
    struct cert_info info;
    if (chain_top(e->rq->chain, e->rq->chain_count, &der) || cert_decode(der, &x) ||
        cert_describe(e->arena, x, &info) ||
        !bytes_equal(info.subject_der, e->peer.unknown_issuer_der))
        return bytes_of(NULL, 0);
    return der;
}

void unknown_issuer_note(const struct enrolment *e)
{
    const struct chain_verdict *v = &e->peer;
    uint8_t hash[SHA256_BYTES];
    if (!v->unknown_issuer ||
        !source_limit_take(e->service->trail_limit, e->rq->source, clock_mono_us()))
        return;
    size_t len = v->unknown_issuer_der.len + v->unknown_aki.len;
    uint8_t *both = arena_alloc(e->arena, len + 1);
    if (!both)
        return;
    memcpy(both, v->unknown_issuer_der.data, v->unknown_issuer_der.len);
    if (v->unknown_aki.len > 0)
        memcpy(both + v->unknown_issuer_der.len, v->unknown_aki.data, v->unknown_aki.len);
    if (digest_sha256(bytes_of(both, len), hash))
        return;
    struct unknown_issuer u = {
        .hash = bytes_of(hash, sizeof(hash)),
        .issuer = v->unknown_issuer,
        .aki = v->unknown_aki.len <= 64 ? v->unknown_aki : bytes_of(NULL, 0),
        .sample = e->rq->chain[0],
        .certificate = sent_issuer(e),
        .source = e->rq->source,
    };
    if (enrol_unknown_issuer(e->service->db, e->arena, &u))
        log_text(LOG_WARN, "unknown_issuer.not_written", "request_id", e->rq->request_id);
}
