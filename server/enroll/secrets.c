#include "enroll/secrets.h"

void secrets_place(struct buf *b, bool grouped, const char *name_lower, enum secrets_slot slot)
{
    buf_printf(b, "%s %s %s", grouped ? "group" : "individual",
               slot == SECRETS_PRIMARY ? "primary" : "secondary", name_lower);
}

enum err secrets_derive(struct bytes master, const char *registration_id,
                        uint8_t ret_key[SHA256_BYTES])
{
    return digest_hmac_sha256(master, bytes_text(registration_id), ret_key);
}

bool secrets_signed(struct bytes key, struct bytes text, struct bytes signature)
{
    uint8_t mac[SHA256_BYTES];
    bool good = signature.len == sizeof(mac) && digest_hmac_sha256(key, text, mac) == ERR_OK &&
                secret_equal(mac, signature.data, sizeof(mac));
    secret_cleanse(mac, sizeof(mac));
    return good;
}
