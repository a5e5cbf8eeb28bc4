#include <string.h>

#include "base/clock.h"
#include "broker/plugin.h"
#include "broker/post.h"

enum { STATUS_EVERY_US = 1000000, WORK_US = 1000 };

static bool is_known(void *arg, const struct conn *n)
{
    const struct plugin *p = arg;
    struct identity who;
    identity_of_cert(p, n->cert, &who);
    return who.who != WHO_NOBODY;
}

static bool time_left(int64_t begin_us)
{
    return clock_mono_us() - begin_us < WORK_US;
}

/* What is not done in this turn is done in the next: meanwhile nobody may do what the table
 * does not say. At least one session ends in each. */
static void sessions_end(struct plugin *p, int64_t begin_us)
{
    struct conn *n;
    for (bool more = true; more && (n = conns_next_due(p->conns)); more = time_left(begin_us)) {
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
    while (p->sweeping && time_left(now_us))
        p->sweeping = conns_sweep(p->conns, is_known, p);
    sessions_end(p, now_us);
    table_tidy(p->table);
    policies_tidy(p->policies);
    keep_tick(p, now_us);
    if (conns_services(p->conns) > 0 && now_us - p->status_us >= STATUS_EVERY_US)
        post_status(p, now_us);
}
