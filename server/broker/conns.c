#include "broker/conns.h"

#include <stdlib.h>
#include <string.h>

#include "broker/mix.h"
#include "model/broker_wire.h"

/* Never grown, so that no connect takes long: with a million connections a chain has 15. */
enum { BUCKETS = 1 << 16, SWEEP_BUCKETS = 256, TICKS_UNDER_WAY = 2 };

LIST_HEAD(conn_list, conn);

struct conns {
    struct mix_key key;
    uint64_t generation;
    uint64_t ticks;
    size_t services;
    size_t swept;           /* bucket the sweep has come to */
    struct conn_list due;   /* to be ended */
    struct conn_list ended; /* kept for the answer under way to them */
    struct conn_list by_id[BUCKETS];
    struct conn_list by_cert[BUCKETS];
};

enum err conns_new(struct conns **ret_conns)
{
    struct conns *c = calloc(1, sizeof(*c));
    if (!c)
        return ERR_NO_MEMORY;
    if (secret_random(&c->key, sizeof(c->key)) ||
        secret_random(&c->generation, sizeof(c->generation))) {
        free(c);
        return ERR_SYSTEM;
    }
    c->generation >>= 2; /* never comes round */
    *ret_conns = c;
    return ERR_OK;
}

static struct conn_list *id_bucket(struct conns *c, const char *id)
{
    return &c->by_id[mix_bytes(&c->key, id, strlen(id)) % BUCKETS];
}

static struct conn_list *cert_bucket(struct conns *c, const uint8_t *cert)
{
    return &c->by_cert[mix_bytes(&c->key, cert, SHA256_BYTES) % BUCKETS];
}

struct conn *conns_find(const struct conns *c, const char *id)
{
    struct conn *n;
    LIST_FOREACH(n, &c->by_id[mix_bytes(&c->key, id, strlen(id)) % BUCKETS], by_id)
    {
        if (strcmp(n->id, id) == 0)
            return n;
    }
    return NULL;
}

static void due_leave(struct conn *n)
{
    if (n->is_due)
        LIST_REMOVE(n, due);
    n->is_due = false;
}

static void due_enter(struct conn_list *list, struct conn *n)
{
    due_leave(n);
    LIST_INSERT_HEAD(list, n, due);
    n->is_due = true;
}

static void conn_free(struct conns *c, struct conn *n)
{
    due_leave(n);
    LIST_REMOVE(n, by_id);
    LIST_REMOVE(n, by_cert);
    c->services -= n->service;
    free(n);
}

void conns_free(struct conns *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < BUCKETS; i++) {
        while (!LIST_EMPTY(&c->by_id[i]))
            conn_free(c, LIST_FIRST(&c->by_id[i]));
    }
    free(c);
}

static struct conn *conn_new(struct conns *c, const char *id, const uint8_t *cert, bool service)
{
    size_t bytes = strlen(id) + 1;
    struct conn *n = calloc(1, sizeof(*n) + bytes);
    if (!n)
        return NULL;
    memcpy(n->id, id, bytes);
    memcpy(n->cert, cert, SHA256_BYTES);
    n->service = service;
    c->services += service;
    LIST_INSERT_HEAD(id_bucket(c, id), n, by_id);
    LIST_INSERT_HEAD(cert_bucket(c, cert), n, by_cert);
    return n;
}

static void conn_restart(struct conns *c, struct conn *n, const void *client)
{
    due_leave(n);
    n->client = client;
    n->generation = ++c->generation;
    n->unanswered = 0;
}

static bool is_under_way(const struct conns *c, const struct conn *n)
{
    return c->ticks < n->landed;
}

static bool is_awaited(const struct conn *n, int64_t now_us)
{
    return n->unanswered > 0 && now_us - n->asked_us < WIRE_ANSWER_TIMEOUT_S * INT64_C(1000000);
}

enum err conns_begin(struct conns *c, const char *id, const void *client,
                     const uint8_t cert[SHA256_BYTES], bool service, int64_t now_us)
{
    struct conn *n = conns_find(c, id);
    if (n &&
        (memcmp(n->cert, cert, SHA256_BYTES) != 0 || is_awaited(n, now_us) || is_under_way(c, n)))
        return ERR_CONFLICT;
    if (!n)
        n = conn_new(c, id, cert, service);
    if (!n)
        return ERR_NO_MEMORY;
    conn_restart(c, n, client);
    return ERR_OK;
}

void conns_end(struct conns *c, const char *id, const void *client)
{
    struct conn *n = conns_find(c, id);
    if (!n || n->client != client)
        return;
    if (is_under_way(c, n)) {
        conn_restart(c, n, NULL);
        due_enter(&c->ended, n);
    } else {
        conn_free(c, n);
    }
}

struct conn *conns_live(struct conns *c, const char *id, const void *client,
                        const uint8_t cert[SHA256_BYTES], bool service)
{
    struct conn *n = conns_find(c, id);
    if (n && n->client == client && memcmp(n->cert, cert, SHA256_BYTES) == 0)
        return n;
    uint64_t landed = n ? n->landed : 0;
    if (n)
        conn_free(c, n);
    n = conn_new(c, id, cert, service);
    if (!n)
        return NULL;
    conn_restart(c, n, client);
    n->landed = landed;
    return n;
}

void conn_asked(struct conn *n, int64_t now_us)
{
    if (!is_awaited(n, now_us))
        n->unanswered = 0;
    n->unanswered++;
    n->asked_us = now_us;
}

void conns_answered(struct conns *c, struct conn *n)
{
    n->unanswered -= n->unanswered > 0;
    n->landed = c->ticks + TICKS_UNDER_WAY;
}

void conns_doom(struct conns *c, const uint8_t cert[SHA256_BYTES])
{
    struct conn *n;
    LIST_FOREACH(n, cert_bucket(c, cert), by_cert)
    {
        if (n->client && memcmp(n->cert, cert, SHA256_BYTES) == 0)
            due_enter(&c->due, n);
    }
}

struct conn *conns_next_due(struct conns *c)
{
    return LIST_FIRST(&c->due);
}

void conns_sweep_begin(struct conns *c)
{
    c->swept = 0;
}

bool conns_sweep(struct conns *c, bool (*known)(void *arg, const struct conn *n), void *arg)
{
    struct conn *n;
    for (size_t i = 0; i < SWEEP_BUCKETS && c->swept < BUCKETS; i++, c->swept++) {
        LIST_FOREACH(n, &c->by_id[c->swept], by_id)
        {
            if (n->client && !known(arg, n))
                due_enter(&c->due, n);
        }
    }
    return c->swept < BUCKETS;
}

void conns_tick(struct conns *c)
{
    struct conn *n = LIST_FIRST(&c->ended);
    c->ticks++;
    while (n) {
        struct conn *next = LIST_NEXT(n, due);
        if (!is_under_way(c, n))
            conn_free(c, n);
        n = next;
    }
}

uint64_t conns_ticks(const struct conns *c)
{
    return c->ticks;
}

size_t conns_services(const struct conns *c)
{
    return c->services;
}
