#include "http/peer.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "http/psk.h"
#include "http/tls.h"
#include "pki/chain.h"
#include "proto/client_cert.h"

static gnutls_session_t session_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    return info ? info->tls_session : NULL;
}

/* In TCP passthrough a client's own header comes from the balancer's address: an address is no
 * proof, so that off the proxy listener nobody is believed. */
enum err peer_headers_check(const struct listener_peers *peers, struct exchange *x)
{
    const char *const forbidden[] = {client_cert_header, client_cert_chain_header};
    for (size_t i = 0; i < ARRAY_LEN(forbidden) && !peers->are_proxies; i++) {
        if (exchange_header(x, forbidden[i]))
            return fault_set(&x->fault, FAULT_PROXY_HEADER, "%s", forbidden[i]);
    }
    return ERR_OK;
}

static enum err peer_verify(const struct listener_peers *peers, gnutls_session_t session,
                            struct exchange *x)
{
    struct bytes chain[EXCHANGE_MAX_CHAIN];
    size_t count = 0;
    struct chain_verdict verdict = {0};
    struct fault why = {0};
    bool named = true;
    if (!session)
        return fault_set(&x->fault, peers->fault, "the connection has no TLS");
    if (tls_peer_chain(session, x->arena, chain, ARRAY_LEN(chain), &count))
        return fault_set(&x->fault, peers->fault, "at most %d certificates", EXCHANGE_MAX_CHAIN);
    if (count == 0)
        return fault_set(&x->fault, peers->fault, "no client certificate was sent");
    enum err e = chain_verify(peers->trust, x->arena, chain, count, clock_wall_s(), &verdict, &why);
    if (e == ERR_DENIED)
        return fault_set(&x->fault, peers->fault, "%s: %.300s", fault_row(why.code)->code,
                         why.detail);
    if (!e && peers->names)
        e = cert_is_named(&verdict.leaf, peers->names, &named);
    if (e)
        return fault_set(&x->fault, FAULT_INTERNAL, "client certificate: %s", err_name(e));
    if (!named)
        return fault_set(&x->fault, peers->fault,
                         "\"%.200s\" has none of the names that are configured",
                         verdict.leaf.subject_text ? verdict.leaf.subject_text : "");
    return ERR_OK;
}

/* Without a trust set anybody may ask: on a local socket its mode says who connects. */
static enum err peer_prove(const struct listener_peers *peers, gnutls_session_t session,
                           struct connection *c, struct exchange *x)
{
    if (c->peer == PEER_UNKNOWN) {
        enum err e = peers->trust ? peer_verify(peers, session, x) : ERR_OK;
        if (e && x->fault.code == FAULT_INTERNAL)
            return e;
        c->peer = e ? PEER_REFUSED : PEER_PROVEN;
        if (e)
            c->peer_fault = x->fault;
    }
    if (c->peer == PEER_PROVEN)
        return ERR_OK;
    x->fault = c->peer_fault;
    return ERR_DENIED;
}

/* Without X-Forwarded-For, or with one that names no address, the proxy's own counts. */
static enum err source_take(struct exchange *x)
{
    const char *header = exchange_header(x, client_cert_address_header);
    struct sockaddr_storage address;
    char text[ADDRESS_TEXT_BYTES];
    if (!header)
        return ERR_OK;
    const char *last = client_cert_address(x->arena, header);
    if (!last)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    if (address_parse(last, &address))
        return ERR_OK;
    address_text(&address, text);
    const char *copy = arena_strdup(x->arena, text);
    if (!copy)
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    x->source = copy;
    return ERR_OK;
}

enum err peer_admit(const struct listener_peers *peers, struct MHD_Connection *mhd,
                    struct connection *c, struct exchange *x)
{
    enum err e = peer_prove(peers, session_of(mhd), c, x);
    if (e || !peers->are_proxies)
        return e;
    e = client_cert_once(x);
    if (!e)
        e = source_take(x);
    if (!e)
        e = client_cert_parse(x->arena, exchange_header(x, client_cert_header),
                              exchange_header(x, client_cert_chain_header), x->chain,
                              EXCHANGE_MAX_CHAIN, &x->chain_count, &x->fault);
    return e;
}

enum err peer_take(const struct listener_peers *peers, struct MHD_Connection *mhd,
                   bool want_binding, struct exchange *x)
{
    gnutls_session_t session = session_of(mhd);
    if (!session || peers->are_proxies)
        return ERR_OK;
    if (tls_peer_chain(session, x->arena, x->chain, EXCHANGE_MAX_CHAIN, &x->chain_count))
        return fault_set(&x->fault, FAULT_CHAIN_MALFORMED, "at most %d certificates",
                         EXCHANGE_MAX_CHAIN);
    if (psk_peer(session, x->arena, &x->psk_identity))
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    if (want_binding && tls_channel_binding(session, x->arena, &x->channel_binding))
        return fault_set(&x->fault, FAULT_INTERNAL, "out of memory");
    return ERR_OK;
}
