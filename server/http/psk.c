#include "http/psk.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "enroll/psk.h"
#include "http/handshake.h"
#include "http/tls.h"

struct psk_door {
    struct catalog *catalog;
    gnutls_psk_server_credentials_t credentials;
    gnutls_priority_t priorities;
    uint8_t decoy[SHA256_BYTES]; /* the master of identities that there are not */
};

/* GnuTLS frees the key, overwritten, when the handshake has it. */
static int key_give(gnutls_session_t session, const gnutls_datum_t *identity, gnutls_datum_t *key)
{
    struct handshake *h = handshake_of(session);
    struct bytes name = bytes_of(identity->data, identity->size);
    uint8_t derived[SHA256_BYTES];
    const char *why = NULL;
    if (psk_derive(h->door->catalog, h->door->decoy, name, derived, &why) ||
        digest_sha256(bytes_of(derived, sizeof(derived)), h->key_digest)) {
        secret_cleanse(derived, sizeof(derived));
        return GNUTLS_E_INTERNAL_ERROR;
    }
    handshake_by_psk(h, name, why);
    key->data = gnutls_malloc(sizeof(derived));
    key->size = key->data ? sizeof(derived) : 0;
    if (key->data)
        memcpy(key->data, derived, sizeof(derived));
    secret_cleanse(derived, sizeof(derived));
    return key->data ? 0 : GNUTLS_E_MEMORY_ERROR;
}

static enum err door_fill(struct psk_door *d)
{
    if (secret_random(d->decoy, sizeof(d->decoy)) ||
        gnutls_psk_allocate_server_credentials(&d->credentials) < 0 ||
        gnutls_priority_init(&d->priorities, tls_priorities_psk, NULL) < 0 ||
        gnutls_psk_set_server_known_dh_params(d->credentials, GNUTLS_SEC_PARAM_MEDIUM) < 0)
        return ERR_SYSTEM;
    gnutls_psk_set_server_credentials_function2(d->credentials, key_give);
    return ERR_OK;
}

enum err psk_door_new(struct catalog *catalog, struct psk_door **ret_door)
{
    struct psk_door *d = calloc(1, sizeof(*d));
    if (!d)
        return ERR_NO_MEMORY;
    d->catalog = catalog;
    enum err e = door_fill(d);
    if (e)
        psk_door_free(d);
    else
        *ret_door = d;
    return e;
}

void psk_door_free(struct psk_door *d)
{
    if (!d)
        return;
    if (d->credentials)
        gnutls_psk_free_server_credentials(d->credentials);
    if (d->priorities)
        gnutls_priority_deinit(d->priorities);
    secret_cleanse(d, sizeof(*d));
    free(d);
}

/* What cannot be offered is not: the client is told by TLS that there is no common suite. */
void psk_door_offer(const struct psk_door *d, gnutls_session_t session, struct handshake *h)
{
    if (!psk_expected(d->catalog))
        return;
    h->door = d;
    if (gnutls_credentials_set(session, GNUTLS_CRD_PSK, d->credentials) >= 0)
        (void)gnutls_priority_set(session, d->priorities);
}

static bool is_forward_secret(gnutls_kx_algorithm_t kx)
{
    return kx == GNUTLS_KX_ECDHE_PSK || kx == GNUTLS_KX_DHE_PSK;
}

/* A connection lives on when its group's master was rotated, or another group took its place.
 * Whether there still is a group that may let it in is not asked here: the pipeline says that
 * better. */
static bool key_stands(const struct handshake *h, struct bytes name)
{
    uint8_t derived[SHA256_BYTES], digest[SHA256_BYTES];
    const char *why = NULL;
    bool known = psk_derive(h->door->catalog, h->door->decoy, name, derived, &why) == ERR_OK &&
                 digest_sha256(bytes_of(derived, sizeof(derived)), digest) == ERR_OK;
    secret_cleanse(derived, sizeof(derived));
    return known && (why || secret_equal(digest, h->key_digest, sizeof(digest)));
}

enum err psk_peer(gnutls_session_t session, struct arena *arena, const char **ret_identity)
{
    gnutls_datum_t name = {0};
    *ret_identity = NULL;
    if (!is_forward_secret(gnutls_kx_get(session)) ||
        gnutls_psk_server_get_username2(session, &name) < 0 || name.size == 0 ||
        !key_stands(handshake_of(session), bytes_of(name.data, name.size)))
        return ERR_OK;
    *ret_identity = arena_copy(arena, name.data, name.size);
    return *ret_identity ? ERR_OK : ERR_NO_MEMORY;
}
