#include <string.h>

#include "base/clock.h"
#include "broker/plugin.h"
#include "broker/post.h"

enum { STATUS_EVERY_US = 1000000, ENDING_US = 1000 };

static bool is_known(void *arg, const struct conn *n)
{
    const struct plugin *p = arg;
    struct identity who;
    identity_of_cert(p, n->cert, &who);
    return who.who != WHO_NOBODY;
}

/* Ends sessions for at most a millisecond; they may do nothing any more in any case. */
static void sessions_end(struct plugin *p, int64_t begin_us)
{
    struct conn *n;
    while ((n = conns_next_due(p->conns)) && clock_mono_us() - begin_us < ENDING_US) {
        char id[WIRE_MAX_CLIENT_CHARS + 1];
        const void *client = n->client;
        memcpy(id, n->id, strlen(n->id) + 1);
        mosquitto_kick_client_by_clientid(id, false);
        conns_end(p->conns, id, client); /* where Mosquitto did not know it */
    }
}

void tick_run(struct plugin *p)
{
    int64_t now_us = clock_mono_us();
    conns_tick(p->conns);
    p->reloading = false;
    if (p->sweeping)
        p->sweeping = conns_sweep(p->conns, is_known, p);
    sessions_end(p, now_us);
    table_tidy(p->table);
    if (conns_services(p->conns) > 0 && now_us - p->status_us >= STATUS_EVERY_US)
        post_status(p, now_us);
}
