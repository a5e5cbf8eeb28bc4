/*
 * Who means harm, mixed into honest load: so many a second of each kind, each bounded in time and
 * number. What becomes of them is counted apart. Threads: the loop's own only.
 */
#pragma once

#include "call.h"
#include "keys.h"
#include "scenario.h"
#include "tally.h"

enum { HOSTILE_AT_ONCE = 2000 };

struct hostile;

struct hostile_settings {
    const struct scenario *scenario;
    const struct dial_target *target;
    const struct keys *keys;
    struct tally *tally;     /* its own: outcomes are "KIND: outcome" */
    const char *spent_token; /* one that was used; NULL: none yet */
};

enum err hostile_new(const struct hostile_settings *settings,
                     struct hostile **ret_hostile) MUST_CHECK;

/* Called once a second: sends the next second's. */
void hostile_tick(struct hostile *h);
void hostile_free(struct hostile *h);
