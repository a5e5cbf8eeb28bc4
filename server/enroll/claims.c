#include "enroll/claims.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/secret.h"

enum { SLOTS = 256, FRESH_US = 1000 * 1000 };

/* One certificate that was asked for lately. A digest is as good as a hash. */
struct slot {
    uint8_t fingerprint[SHA256_BYTES];
    int64_t asked_us; /* 0: empty */
    bool is_claim;
    struct claim_row row;
};

struct claims {
    struct db *db;
    pthread_mutex_t lock; /* guards the slots; free while the database works */
    struct slot slots[SLOTS];
};

enum err claims_new(struct db *db, struct claims **ret_claims)
{
    struct claims *c = calloc(1, sizeof(*c));
    if (!c)
        return ERR_NO_MEMORY;
    c->db = db;
    pthread_mutex_init(&c->lock, NULL);
    *ret_claims = c;
    return ERR_OK;
}

void claims_free(struct claims *c)
{
    if (!c)
        return;
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static struct slot *slot_of(struct claims *c, struct bytes fingerprint)
{
    return &c->slots[fingerprint.data[0] % SLOTS];
}

static bool slot_look(struct claims *c, struct bytes fingerprint, struct slot *ret_slot)
{
    pthread_mutex_lock(&c->lock);
    *ret_slot = *slot_of(c, fingerprint);
    pthread_mutex_unlock(&c->lock);
    return ret_slot->asked_us != 0 && clock_mono_us() - ret_slot->asked_us < FRESH_US &&
           memcmp(ret_slot->fingerprint, fingerprint.data, SHA256_BYTES) == 0;
}

enum err claims_find(struct claims *c, struct bytes fingerprint, struct arena *arena,
                     struct claim_row *ret_claim)
{
    struct slot s;
    if (fingerprint.len != SHA256_BYTES)
        return ERR_NOT_FOUND;
    if (!slot_look(c, fingerprint, &s)) {
        s = (struct slot){.asked_us = clock_mono_us()};
        memcpy(s.fingerprint, fingerprint.data, SHA256_BYTES);
        enum err e = claim_get(c->db, fingerprint, arena, &s.row);
        if (e && e != ERR_NOT_FOUND)
            return e;
        s.is_claim = e == ERR_OK;
        pthread_mutex_lock(&c->lock);
        *slot_of(c, fingerprint) = s;
        pthread_mutex_unlock(&c->lock);
    }
    if (!s.is_claim)
        return ERR_NOT_FOUND;
    *ret_claim = s.row;
    return ERR_OK;
}

bool claim_row_allows(const struct claim_row *claim, int64_t template_id)
{
    for (size_t i = 0; i < claim->template_count; i++) {
        if (claim->templates[i] == template_id)
            return true;
    }
    return false;
}
