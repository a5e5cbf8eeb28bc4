#include "enroll/psk.h"

#include "enroll/catalog.h"
#include "enroll/secrets.h"
#include "model/psk_identity.h"

bool psk_expected(struct catalog *c)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    return catalog_peek(c, &snapshot) == ERR_OK && snapshot_has_psk(snapshot);
}

/* The master that the identity names; len 0: there is none, and why. */
static struct bytes master_find(const struct snapshot *s, struct bytes identity,
                                const char **ret_why)
{
    struct psk_identity id;
    if (psk_identity_parse(identity, &id)) {
        *ret_why = "the PSK identity is not product/serial";
        return bytes_of(NULL, 0);
    }
    const struct catalog_psk *group = snapshot_psk(s, id.product);
    if (!group)
        *ret_why = "the product of the PSK identity has no PSK group";
    else if (!group->enabled)
        *ret_why = "the PSK group of the product is disabled";
    else if (group->masters[0].len == 0)
        *ret_why = "the keys of the PSK group cannot be opened";
    else
        return group->masters[id.secondary ? SECRETS_SECONDARY : SECRETS_PRIMARY];
    return bytes_of(NULL, 0);
}

enum err psk_derive(struct catalog *c, const uint8_t decoy[SHA256_BYTES], struct bytes identity,
                    uint8_t ret_key[SHA256_BYTES], const char **ret_why)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    struct bytes master = {0};
    *ret_why = NULL;
    if (catalog_peek(c, &snapshot))
        *ret_why = "the catalog was never loaded";
    else
        master = master_find(snapshot, identity, ret_why);
    if (master.len == 0)
        master = bytes_of(decoy, SHA256_BYTES);
    return digest_hmac_sha256(master, identity, ret_key);
}
