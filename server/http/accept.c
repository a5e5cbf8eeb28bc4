#include "http/accept.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "http/proxy_v2.h"

enum {
    TICK_MS = 1000,
    BACK_OFF_MS = 100,  /* when descriptors or memory have run out */
    BATCH = 64,         /* accepted before the others are looked at again */
    COMPLAIN_S = 10,    /* between two records of that */
    MAX_BACKLOG = 4096, /* that the kernel may hold when the socket is closed */
    STACK_BYTES = 256 * 1024,
    SECOND_US = 1000000,
};

enum command { COMMAND_NONE, COMMAND_QUIESCE, COMMAND_END };

/* A balancer's socket whose header has not come whole. */
struct pending {
    int fd;
    struct sockaddr_storage from;
    int64_t accepted_us;
    size_t have;
    size_t want;
    uint8_t header[PROXY_V2_MAX_BYTES];
};

struct acceptor {
    pthread_t thread;
    int listen_fd; /* -1: quiesced; the thread's own */
    int wake_fd;
    sem_t quiesced;
    atomic_int command;
    const struct address_list *balancers;
    const struct accept_events *events;
    void *owner;
    int64_t back_off_until_us;
    int64_t complained_us;
    int64_t ticked_us;
    atomic_uint pending_count; /* written by the thread */
    struct pending *pending[ACCEPT_MAX_PENDING];
    struct pollfd polled[ACCEPT_MAX_PENDING + 2];
};

static void pending_drop(struct acceptor *a, unsigned i)
{
    free(a->pending[i]);
    unsigned last = atomic_fetch_sub(&a->pending_count, 1) - 1;
    a->pending[i] = a->pending[last];
    a->pending[last] = NULL;
}

static void pending_lose(struct acceptor *a, unsigned i, const char *why)
{
    struct pending *p = a->pending[i];
    a->events->lost(a->owner, &p->from, why, p->accepted_us);
    close(p->fd);
    pending_drop(a, i);
}

static void pending_ready(struct acceptor *a, unsigned i, const struct proxy_v2 *proxy)
{
    struct pending *p = a->pending[i];
    a->events->ready(a->owner, p->fd, proxy->local ? &p->from : &proxy->source, p->accepted_us);
    pending_drop(a, i);
}

/* Reads up to the end of the header and not a byte further. */
static void pending_read(struct acceptor *a, unsigned i)
{
    struct pending *p = a->pending[i];
    struct proxy_v2 proxy;
    ssize_t n = recv(p->fd, p->header + p->have, p->want - p->have, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        pending_lose(a, i, "the connection ended before its PROXY header");
        return;
    }
    p->have += (size_t)n;
    if (p->have < p->want)
        return;
    if (p->have == PROXY_V2_FIXED_BYTES &&
        proxy_v2_length(bytes_of(p->header, p->have), &p->want)) {
        pending_lose(a, i, "no valid PROXY header, version 2");
        return;
    }
    if (p->have < p->want)
        return;
    if (proxy_v2_decode(bytes_of(p->header, p->have), &proxy))
        pending_lose(a, i, "no valid PROXY header, version 2");
    else
        pending_ready(a, i, &proxy);
}

/* The oldest goes where there is no room: strangers never get here, only balancers. */
static void pending_add(struct acceptor *a, int fd, const struct sockaddr_storage *from,
                        int64_t now_us)
{
    struct pending *p = calloc(1, sizeof(*p));
    if (!p) {
        close(fd);
        return;
    }
    unsigned oldest = 0, count = atomic_load(&a->pending_count);
    for (unsigned i = 1; i < count; i++) {
        if (a->pending[i]->accepted_us < a->pending[oldest]->accepted_us)
            oldest = i;
    }
    if (count == ACCEPT_MAX_PENDING)
        pending_lose(a, oldest, "too many connections without a PROXY header");
    *p = (struct pending){
        .fd = fd, .from = *from, .accepted_us = now_us, .want = PROXY_V2_FIXED_BYTES};
    a->pending[atomic_fetch_add(&a->pending_count, 1)] = p;
}

/* The same call would fail at once again: told, and not tried for a moment. */
static void back_off(struct acceptor *a, int64_t now_us)
{
    char why[128];
    a->back_off_until_us = now_us + BACK_OFF_MS * 1000;
    if (a->complained_us > 0 && now_us - a->complained_us < COMPLAIN_S * (int64_t)SECOND_US)
        return;
    a->complained_us = now_us;
    log_text(LOG_ERROR, "connection.not_accepted", "reason", strerror_r(errno, why, sizeof(why)));
}

/* false: nothing is left to accept now. */
static bool accept_one(struct acceptor *a, int64_t now_us)
{
    const int on = 1;
    struct sockaddr_storage from = {0};
    socklen_t len = sizeof(from);
    int fd = accept4(a->listen_fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
        return true;
    if (fd < 0) {
        if (errno != EAGAIN)
            back_off(a, now_us);
        return false;
    }
    address_plain(&from);
    if (from.ss_family != AF_UNIX)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (address_list_has(a->balancers, &from))
        pending_add(a, fd, &from, now_us);
    else
        a->events->ready(a->owner, fd, &from, now_us);
    return true;
}

/* Who is connected already is not known to be late: closing would reset what the kernel holds. */
static void command_obey(struct acceptor *a)
{
    uint64_t count;
    (void)!read(a->wake_fd, &count, sizeof(count));
    if (a->listen_fd < 0)
        return;
    for (int i = 0; i < MAX_BACKLOG && accept_one(a, clock_mono_us()); i++)
        continue;
    close(a->listen_fd);
    a->listen_fd = -1;
    sem_post(&a->quiesced);
}

static int timeout_ms(const struct acceptor *a, int64_t now_us)
{
    if (now_us < a->back_off_until_us)
        return BACK_OFF_MS;
    bool busy = atomic_load(&a->pending_count) > 0 || a->events->busy(a->owner);
    return busy ? TICK_MS : -1;
}

static void tick(struct acceptor *a, int64_t now_us)
{
    if (now_us - a->ticked_us < SECOND_US)
        return;
    a->ticked_us = now_us;
    for (unsigned i = atomic_load(&a->pending_count); i > 0; i--) {
        if (now_us - a->pending[i - 1]->accepted_us > ACCEPT_HEADER_TIMEOUT_S * SECOND_US)
            pending_lose(a, i - 1, "the PROXY header did not come in time");
    }
    a->events->tick(a->owner, now_us);
}

/* Fills a->polled: the wake-up, the listening socket, the pending ones in their order. */
static unsigned polled_fill(struct acceptor *a, int64_t now_us)
{
    unsigned count = atomic_load(&a->pending_count);
    bool open = a->listen_fd >= 0 && now_us >= a->back_off_until_us;
    a->polled[0] = (struct pollfd){.fd = a->wake_fd, .events = POLLIN};
    a->polled[1] = (struct pollfd){.fd = open ? a->listen_fd : -1, .events = POLLIN};
    for (unsigned i = 0; i < count; i++)
        a->polled[2 + i] = (struct pollfd){.fd = a->pending[i]->fd, .events = POLLIN};
    return count;
}

static void *accept_run(void *arg)
{
    struct acceptor *a = arg;
    while (atomic_load(&a->command) != COMMAND_END) {
        int64_t now_us = clock_mono_us();
        unsigned count = polled_fill(a, now_us);
        if (poll(a->polled, 2 + count, timeout_ms(a, now_us)) < 0)
            continue;
        if (a->polled[0].revents)
            command_obey(a);
        now_us = clock_mono_us();
        /* from the end: one that leaves is replaced by one that was looked at */
        for (unsigned i = count; i > 0; i--) {
            if (a->polled[2 + i - 1].revents)
                pending_read(a, i - 1);
        }
        for (int i = 0; i < BATCH && a->listen_fd >= 0 && a->polled[1].revents; i++) {
            if (!accept_one(a, now_us))
                break;
        }
        tick(a, now_us);
    }
    return NULL;
}

static enum err thread_start(struct acceptor *a)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int rc = pthread_create(&a->thread, &attr, accept_run, a);
    pthread_attr_destroy(&attr);
    return rc == 0 ? ERR_OK : ERR_SYSTEM;
}

enum err accept_new(int listen_fd, const struct address_list *balancers,
                    const struct accept_events *events, void *owner, struct acceptor **ret_acceptor)
{
    struct acceptor *a = calloc(1, sizeof(*a));
    if (!a)
        return ERR_NO_MEMORY;
    a->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    a->listen_fd = listen_fd;
    a->balancers = balancers;
    a->events = events;
    a->owner = owner;
    sem_init(&a->quiesced, 0, 0);
    enum err e = a->wake_fd >= 0 ? thread_start(a) : ERR_SYSTEM;
    if (e) {
        if (a->wake_fd >= 0)
            close(a->wake_fd);
        sem_destroy(&a->quiesced);
        free(a);
        return e;
    }
    *ret_acceptor = a;
    return ERR_OK;
}

unsigned accept_pending(const struct acceptor *a)
{
    return atomic_load(&a->pending_count);
}

static void command_give(struct acceptor *a, enum command command)
{
    const uint64_t one = 1;
    atomic_store(&a->command, command);
    (void)!write(a->wake_fd, &one, sizeof(one));
}

void accept_quiesce(struct acceptor *a)
{
    command_give(a, COMMAND_QUIESCE);
    while (sem_wait(&a->quiesced) != 0 && errno == EINTR)
        continue;
    sem_post(&a->quiesced);
}

void accept_free(struct acceptor *a)
{
    if (!a)
        return;
    command_give(a, COMMAND_END);
    pthread_join(a->thread, NULL);
    for (unsigned i = 0; i < atomic_load(&a->pending_count); i++) {
        close(a->pending[i]->fd);
        free(a->pending[i]);
    }
    if (a->listen_fd >= 0)
        close(a->listen_fd);
    close(a->wake_fd);
    sem_destroy(&a->quiesced);
    free(a);
}
