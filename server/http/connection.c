#include "http/connection.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { EXPIRED = -1, FIRST_SLOTS = 256 };

void connections_init(struct connections *t, atomic_uint *coming)
{
    *t = (struct connections){.coming = coming};
    pthread_mutex_init(&t->lock, NULL);
}

void connections_done(struct connections *t)
{
    for (size_t i = 0; i < t->slots; i++)
        free(t->by_fd[i]);
    free(t->by_fd);
    pthread_mutex_destroy(&t->lock);
}

unsigned connections_count(struct connections *t)
{
    pthread_mutex_lock(&t->lock);
    unsigned count = t->count;
    pthread_mutex_unlock(&t->lock);
    return count;
}

/* With the lock held: room for this descriptor. */
static enum err room_make(struct connections *t, size_t fd)
{
    size_t slots = t->slots ? t->slots : FIRST_SLOTS;
    while (slots <= fd)
        slots *= 2;
    if (slots == t->slots)
        return ERR_OK;
    struct connection **grown = realloc(t->by_fd, slots * sizeof(struct connection *));
    if (!grown)
        return ERR_NO_MEMORY;
    memset(grown + t->slots, 0, (slots - t->slots) * sizeof(struct connection *));
    t->by_fd = grown;
    t->slots = slots;
    return ERR_OK;
}

/* With the lock held. Its thread has ended, or never was. */
static void slot_clear(struct connections *t, size_t fd)
{
    if (fd >= t->slots || !t->by_fd[fd])
        return;
    connection_ask(t, t->by_fd[fd]); /* it never will */
    free(t->by_fd[fd]);
    t->by_fd[fd] = NULL;
    t->count--;
}

enum err connections_add(struct connections *t, int fd, const struct sockaddr_storage *source,
                         int64_t accepted_us, unsigned most)
{
    struct connection *c = calloc(1, sizeof(*c));
    if (!c)
        return ERR_NO_MEMORY;
    c->fd = fd;
    c->accepted_us = accepted_us;
    atomic_init(&c->awaited_us, accepted_us);
    address_text(source, c->source);
    c->handshake.last = -1;
    pthread_mutex_lock(&t->lock);
    enum err e = room_make(t, (size_t)fd);
    /* one that libmicrohttpd gave up before it had begun is still there */
    slot_clear(t, (size_t)fd);
    if (!e && t->count >= most)
        e = ERR_UNAVAILABLE;
    if (!e) {
        t->by_fd[fd] = c;
        t->count++;
        atomic_fetch_add(t->coming, 1);
    }
    pthread_mutex_unlock(&t->lock);
    if (e)
        free(c);
    return e;
}

struct connection *connections_begin(struct connections *t, int fd)
{
    pthread_mutex_lock(&t->lock);
    struct connection *c = (size_t)fd < t->slots ? t->by_fd[fd] : NULL;
    if (c)
        c->begun = true;
    pthread_mutex_unlock(&t->lock);
    return c;
}

void connections_remove(struct connections *t, int fd)
{
    pthread_mutex_lock(&t->lock);
    slot_clear(t, (size_t)fd);
    pthread_mutex_unlock(&t->lock);
}

/* Its thread sees the end of the stream, and libmicrohttpd closes the socket. */
static void expire_one(struct connection *c, int64_t since_us)
{
    int_fast64_t awaited = atomic_load(&c->awaited_us);
    if (awaited > 0 && awaited < since_us &&
        atomic_compare_exchange_strong(&c->awaited_us, &awaited, EXPIRED))
        shutdown(c->fd, SHUT_RDWR);
}

void connections_expire(struct connections *t, int64_t since_us)
{
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->slots; i++) {
        if (t->by_fd[i] && t->by_fd[i]->begun)
            expire_one(t->by_fd[i], since_us);
    }
    pthread_mutex_unlock(&t->lock);
}

void connection_ask(struct connections *t, struct connection *c)
{
    if (!c->asked)
        atomic_fetch_sub(t->coming, 1);
    c->asked = true;
}

bool connection_work(struct connection *c)
{
    int_fast64_t awaited = atomic_exchange(&c->awaited_us, 0);
    if (awaited != EXPIRED)
        return true;
    atomic_store(&c->awaited_us, EXPIRED);
    return false;
}

void connection_await(struct connection *c, int64_t now_us)
{
    int_fast64_t working = 0;
    (void)atomic_compare_exchange_strong(&c->awaited_us, &working, now_us);
}
