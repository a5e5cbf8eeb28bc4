#include "hold.h"

#include <stdlib.h>
#include <sys/socket.h>

enum { AT_ONCE = 64 };

struct hold {
    const struct dial_target *target;
    struct call *calls;
    size_t count;
    size_t started;
    size_t ended;
    size_t held;
};

static void one_done(struct call *c);

static void one_start(struct hold *h)
{
    struct call *c = &h->calls[h->started++];
    *c = (struct call){.target = h->target,
                       .method = "GET",
                       .path = "/",
                       .hold = true,
                       .done = one_done,
                       .owner = h};
    if (call_start(c))
        h->ended++;
}

static void one_done(struct call *c)
{
    struct hold *h = c->owner;
    h->ended++;
    h->held += c->stage == CALL_SEND;
    if (h->started < h->count)
        one_start(h);
    if (h->ended == h->count)
        loop_stop(h->target->loop);
}

enum err hold_open(const struct dial_target *target, size_t count, struct hold **ret_hold)
{
    struct hold *h = calloc(1, sizeof(*h));
    if (!h || !(h->calls = calloc(count, sizeof(*h->calls)))) {
        free(h);
        return ERR_NO_MEMORY;
    }
    h->target = target;
    h->count = count;
    while (h->started < count && h->started < AT_ONCE)
        one_start(h);
    if (h->ended < count)
        loop_run(target->loop);
    if (h->held < count) {
        hold_close(h);
        return ERR_UNAVAILABLE;
    }
    *ret_hold = h;
    return ERR_OK;
}

size_t hold_lost(const struct hold *h)
{
    size_t lost = 0;
    char byte;
    for (size_t i = 0; i < h->count; i++)
        lost += recv(h->calls[i].watch.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
    return lost;
}

void hold_close(struct hold *h)
{
    for (size_t i = 0; h && i < h->started; i++) {
        if (h->calls[i].stage == CALL_SEND)
            call_abandon(&h->calls[i]);
    }
    if (h)
        free(h->calls);
    free(h);
}
