#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "broker/grant.h"
#include "broker/plugin.h"
#include "broker/post.h"
#include "broker/topics.h"

DEFINE_CLEANUP(X509 *, X509_free);

static bool cert_of(const struct mosquitto *client, uint8_t ret_cert[SHA256_BYTES])
{
    _cleanup_(X509_freep) X509 *x = mosquitto_client_certificate(client);
    unsigned len = 0;
    return x && X509_digest(x, EVP_sha256(), ret_cert, &len) == 1;
}

/* musterd may make a device of it, and the next try gets in. */
static void unknown_tell(struct plugin *p, const struct mosquitto *client,
                         const struct identity *who)
{
    uint8_t *der = NULL;
    _cleanup_(X509_freep) X509 *x = mosquitto_client_certificate(client);
    if (!recent_take(&p->unknown, who->cert, clock_mono_us()))
        return;
    int len = x ? i2d_X509(x, &der) : 0;
    if (len > 0 && len <= WIRE_MAX_UNKNOWN_BYTES)
        post_unknown(client, who, bytes_of(der, (size_t)len));
    OPENSSL_free(der);
}

/* Why a client may not connect; NULL when it may. */
static const char *refusal_of(struct plugin *p, const struct mosquitto *client,
                              struct identity *ret_identity)
{
    const char *id = mosquitto_client_id(client);
    uint8_t cert[SHA256_BYTES];
    if (conns_ticks(p->conns) == 0)
        return "no tick yet; per_listener_settings must be false";
    if (!client_id_valid(id))
        return "the client id is too long, or has + # / or control characters";
    if (!cert_of(client, cert))
        return "no certificate";
    identity_of_cert(p, cert, ret_identity);
    if (client_id_is_service(id) != (ret_identity->who == WHO_SERVICE))
        return "client ids that begin with " WIRE_SERVICE_CLIENT_PREFIX " are for musterd, only";
    if (ret_identity->who == WHO_SERVICE)
        return NULL;
    if (!p->ready)
        return "the table of certificates is not complete yet";
    if (ret_identity->who == WHO_DEVICE && ret_identity->grants.len > 0 &&
        !grant_allows(p, client, ret_identity, POLICY_CONNECT, id))
        return "its policies do not allow it to connect under this client id";
    if (ret_identity->who != WHO_NOBODY)
        return NULL;
    unknown_tell(p, client, ret_identity);
    return "the certificate is not admitted";
}

static const char *begin(struct plugin *p, struct mosquitto *client, const struct identity *who)
{
    char name[HEX_BYTES];
    const char *id = mosquitto_client_id(client);
    switch (
        conns_begin(p->conns, id, client, who->cert, who->who == WHO_SERVICE, clock_mono_us())) {
    case ERR_OK:
        break;
    case ERR_CONFLICT:
        return "the client id is another certificate's, or an answer to it is awaited";
    case ERR_INVALID:
    case ERR_NOT_FOUND:
    case ERR_DENIED:
    case ERR_UNAVAILABLE:
    case ERR_NO_MEMORY:
    case ERR_SYSTEM:
        return "no memory";
    }
    hex_of(who->cert, name);
    if (mosquitto_set_username(client, name) == MOSQ_ERR_SUCCESS)
        return NULL;
    conns_end(p->conns, id, client);
    return "no memory";
}

/* After a reload: sessions without a connection are judged when they come back. */
static int check_again(const struct plugin *p, const struct mosquitto *client)
{
    const char *id = mosquitto_client_id(client);
    const struct conn *n = id ? conns_find(p->conns, id) : NULL;
    struct identity who;
    if (!n || n->client != client)
        return MOSQ_ERR_SUCCESS;
    identity_of_client(p, client, &who);
    return who.who == WHO_NOBODY ? MOSQ_ERR_AUTH : MOSQ_ERR_SUCCESS;
}

int auth_check(struct plugin *p, struct mosquitto_evt_basic_auth *ev)
{
    struct identity who = {0};
    char shown[TOPIC_SHOWN_BYTES];
    if (p->reloading)
        return check_again(p, ev->client);
    const char *why = refusal_of(p, ev->client, &who);
    if (!why)
        why = begin(p, ev->client, &who);
    if (!why) {
        if (who.unused)
            post_seen(ev->client, &who);
        return MOSQ_ERR_SUCCESS;
    }
    topic_show(mosquitto_client_id(ev->client), shown);
    if (sample_take(&p->refused, clock_mono_us()))
        mosquitto_log_printf(MOSQ_LOG_NOTICE, "mosquitto_muster: client %s from %s refused: %s",
                             shown, mosquitto_client_address(ev->client), why);
    return MOSQ_ERR_AUTH;
}
