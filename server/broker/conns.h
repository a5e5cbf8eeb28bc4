/*
 * The connections of the broker by client id: whose they are, which generation, and whether an
 * answer is awaited or under way. Mosquitto delivers by client id, so this is what keeps an answer
 * from a connection that did not ask. A client's pointer is compared, never followed. An entry
 * lives until its connection ends, or a little longer while an answer to it is under way; the
 * strings of an entry are its own. Whoever made the connections frees them. Threads: owner only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/err.h"
#include "base/secret.h"

struct conns;

struct conn {
    LIST_ENTRY(conn) by_id;
    LIST_ENTRY(conn) by_cert;
    LIST_ENTRY(conn) due;
    const void *client; /* NULL: ended while an answer to it was under way */
    uint64_t generation;
    uint8_t cert[SHA256_BYTES];
    bool service;
    bool is_due;
    unsigned unanswered; /* requests */
    int64_t asked_us;    /* when the last of them came */
    uint64_t landed;     /* the tick at which no answer is under way any more */
    char id[];
};

enum err conns_new(struct conns **ret_conns) MUST_CHECK;
void conns_free(struct conns *c);

/* A connection begins, under a new generation. ERR_CONFLICT: the client id is another
 * certificate's, or its connection awaits an answer, or one is under way to it. */
enum err conns_begin(struct conns *c, const char *id, const void *client,
                     const uint8_t cert[SHA256_BYTES], bool service, int64_t now_us) MUST_CHECK;

/* A connection ends; of a client id that another connection has taken over nothing changes. */
void conns_end(struct conns *c, const char *id, const void *client);

/* The entry of a connection that evidently lives: made, or put right under a new generation, where
 * it is missing or another's. NULL when memory ran out. */
struct conn *conns_live(struct conns *c, const char *id, const void *client,
                        const uint8_t cert[SHA256_BYTES], bool service);

/* The connection with that client id, NULL when there is none. */
struct conn *conns_find(const struct conns *c, const char *id);

void conn_asked(struct conn *n, int64_t now_us);

/* An answer to it was handed to the broker, which sends it before the tick after the next. */
void conns_answered(struct conns *c, struct conn *n);

/* The sessions of the certificate are to be ended: conns_next_due hands them out. */
void conns_doom(struct conns *c, const uint8_t cert[SHA256_BYTES]);

/* The connection to be ended next, NULL when there is none; it stays until conns_end. */
struct conn *conns_next_due(struct conns *c);

/* Dooms the connections whose certificate is not known any more, a small part of all with each call
 * from the beginning on. False when that was the last part. */
void conns_sweep_begin(struct conns *c);
bool conns_sweep(struct conns *c, bool (*known)(void *arg, const struct conn *n), void *arg);

/* A turn of the broker's loop is over. */
void conns_tick(struct conns *c);

uint64_t conns_ticks(const struct conns *c);

/* How many of them are musterd. */
size_t conns_services(const struct conns *c);
