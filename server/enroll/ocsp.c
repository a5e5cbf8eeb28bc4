#include "enroll/ocsp.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limit.h"
#include "base/log.h"
#include "enroll/catalog.h"
#include "enroll/service.h"
#include "pki/ocsp.h"
#include "store/revocation.h"

enum {
    MAX_ISSUERS = 64,
    RESPONDER_LIFE_S = 7 * 86400,
    KEPT = 4096, /* answers */
    KEPT_MAX_BYTES = 4096,
    NONCE_BURST_S = 2
};

/* An answer to one CertID without nonce. */
struct kept {
    struct bytes id;
    struct ocsp_status status;
    int64_t this_update_s, next_update_s;
    uint8_t *bytes; /* id, then the answer */
    size_t len;     /* of the answer */
};

struct seat {
    int64_t issuer_id;
    struct ocsp_responder *responder;
};

struct ocsp_desk {
    struct source_limit *limit;
    pthread_mutex_t lock; /* guards what follows */
    struct seat seats[MAX_ISSUERS];
    size_t seat_count;
    struct kept kept[KEPT];
};

enum err ocsp_desk_new(unsigned nonces_per_s, struct ocsp_desk **ret_desk)
{
    struct ocsp_desk *d = calloc(1, sizeof(*d));
    if (!d)
        return ERR_NO_MEMORY;
    enum err e = source_limit_new(nonces_per_s, nonces_per_s * NONCE_BURST_S, &d->limit);
    if (e) {
        free(d);
        return e;
    }
    pthread_mutex_init(&d->lock, NULL);
    *ret_desk = d;
    return ERR_OK;
}

void ocsp_desk_free(struct ocsp_desk *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->seat_count; i++)
        ocsp_responder_free(d->seats[i].responder);
    for (size_t i = 0; i < KEPT; i++)
        free(d->kept[i].bytes);
    source_limit_free(d->limit);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

/* One question under way. */
struct question {
    struct service *service;
    struct snapshot *snapshot;
    const struct issuer *issuer;
    struct ocsp_request request;
    struct ocsp_status statuses[OCSP_MAX_ASKED];
    struct arena *arena;
    int64_t now_s;
};

/* All that is asked must be of one issuer: the answer is signed by its responder. */
static bool issuer_find(struct question *q)
{
    const char *names[MAX_ISSUERS];
    size_t count = snapshot_issuers(q->snapshot, names, MAX_ISSUERS);
    for (size_t i = 0; i < count && !q->issuer; i++) {
        const struct issuer *issuer = snapshot_issuer(q->snapshot, names[i]);
        size_t asked = 0;
        while (asked < q->request.count && ocsp_asks_for(&q->request.asked[asked], issuer))
            asked++;
        if (asked == q->request.count)
            q->issuer = issuer;
    }
    return q->issuer != NULL;
}

static enum err statuses_load(struct question *q)
{
    enum err e = ERR_OK;
    for (size_t i = 0; i < q->request.count && !e; i++)
        e = revocation_status(q->service->db, q->request.asked[i].serial_number,
                              issuer_id(q->issuer), &q->statuses[i]);
    return e;
}

/* With the lock held. A responder is replaced when half of its life is over. */
static enum err seat_take(struct ocsp_desk *d, const struct issuer *issuer, int64_t now_s,
                          struct ocsp_responder **ret_responder)
{
    size_t i = 0;
    while (i < d->seat_count && d->seats[i].issuer_id != issuer_id(issuer))
        i++;
    struct seat *seat = &d->seats[i];
    if (i == MAX_ISSUERS)
        return ERR_NO_MEMORY;
    if (i == d->seat_count ||
        ocsp_responder_not_after_s(seat->responder) - now_s < RESPONDER_LIFE_S / 2) {
        struct ocsp_responder *fresh = NULL;
        enum err e = ocsp_responder_new(issuer, now_s, RESPONDER_LIFE_S, &fresh);
        if (e)
            return e;
        if (i < d->seat_count)
            ocsp_responder_free(seat->responder);
        else
            d->seat_count++;
        *seat = (struct seat){issuer_id(issuer), fresh};
    }
    *ret_responder = seat->responder;
    return ERR_OK;
}

static bool same(const struct ocsp_status *a, const struct ocsp_status *b)
{
    return a->state == b->state && a->revoked_s == b->revoked_s && a->reason == b->reason;
}

/* FNV-1a: which place an answer has; two that share one take turns. */
static struct kept *place_of(struct ocsp_desk *d, struct bytes id)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < id.len; i++)
        h = (h ^ id.data[i]) * 16777619u;
    return &d->kept[h % KEPT];
}

/* With the lock held: an answer in the first half of its life, to the same question, of the same
 * status. */
static bool kept_take(struct question *q, struct ocsp_answer *ret)
{
    const struct bytes id = q->request.asked[0].id;
    const struct kept *k = place_of(q->service->ocsp, id);
    if (!k->bytes || !bytes_equal(k->id, id) || !same(&k->status, &q->statuses[0]) ||
        q->now_s > k->this_update_s + (k->next_update_s - k->this_update_s) / 2)
        return false;
    const void *copy = arena_copy(q->arena, k->bytes + k->id.len, k->len);
    *ret = (struct ocsp_answer){bytes_of(copy, k->len), k->this_update_s, k->next_update_s};
    return copy != NULL;
}

static void keep(struct question *q, const struct ocsp_answer *answer)
{
    const struct bytes id = q->request.asked[0].id;
    struct kept *k = place_of(q->service->ocsp, id);
    uint8_t *bytes = id.len + answer->der.len <= KEPT_MAX_BYTES ? malloc(KEPT_MAX_BYTES) : NULL;
    if (!bytes)
        return;
    memcpy(bytes, id.data, id.len);
    memcpy(bytes + id.len, answer->der.data, answer->der.len);
    free(k->bytes);
    *k = (struct kept){bytes_of(bytes, id.len), q->statuses[0], answer->this_update_s,
                       answer->next_update_s,   bytes,          answer->der.len};
}

/* The signature is made under the lock: a responder may be replaced, and one question's signature
 * is not what a busy replica waits for. */
static enum err answer_make(struct question *q, bool cacheable, struct ocsp_answer *ret)
{
    struct ocsp_desk *d = q->service->ocsp;
    struct ocsp_responder *responder = NULL;
    int64_t next_s = q->now_s + q->service->revocation.ocsp_life_s;
    enum err e = seat_take(d, q->issuer, q->now_s, &responder);
    if (!e)
        e = ocsp_respond(responder, &q->request, q->statuses, q->now_s, next_s, q->arena,
                         &ret->der);
    if (e || !cacheable)
        return e;
    ret->this_update_s = q->now_s;
    ret->next_update_s = next_s;
    keep(q, ret);
    return ERR_OK;
}

static enum err answer_find(struct question *q, struct ocsp_answer *ret)
{
    struct ocsp_desk *d = q->service->ocsp;
    bool cacheable = q->request.count == 1 && q->request.nonce.len == 0;
    pthread_mutex_lock(&d->lock);
    enum err e = cacheable && kept_take(q, ret) ? ERR_OK : answer_make(q, cacheable, ret);
    pthread_mutex_unlock(&d->lock);
    return e;
}

static struct ocsp_answer failed(enum ocsp_failure failure)
{
    return (struct ocsp_answer){.der = ocsp_failed(failure)};
}

void ocsp_ask(struct service *service, struct bytes request, const char *source,
              struct arena *arena, struct ocsp_answer *ret_answer)
{
    _cleanup_(snapshot_dropp) struct snapshot *snapshot = NULL;
    struct question q = {.service = service, .arena = arena, .now_s = clock_wall_s()};
    *ret_answer = failed(OCSP_MALFORMED);
    if (ocsp_request_parse(request, arena, &q.request))
        return;
    *ret_answer = failed(OCSP_TRY_LATER);
    if (catalog_get(service->catalog, &snapshot))
        return;
    q.snapshot = snapshot;
    *ret_answer = failed(OCSP_UNAUTHORIZED);
    if (!issuer_find(&q))
        return;
    *ret_answer = failed(OCSP_TRY_LATER);
    if ((q.request.nonce.len > 0 || q.request.count > 1) &&
        !source_limit_take(service->ocsp->limit, source, clock_mono_us())) {
        if (q.request.count > 1)
            return;
        q.request.nonce = bytes_of(NULL, 0);
    }
    enum err e = statuses_load(&q);
    if (!e)
        e = answer_find(&q, ret_answer);
    if (e) {
        *ret_answer = failed(e == ERR_UNAVAILABLE ? OCSP_TRY_LATER : OCSP_INTERNAL);
        log_text(LOG_WARN, "ocsp.not_answered", "error", err_name(e));
    }
}
