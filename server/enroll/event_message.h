/* Where an event goes at the broker, and as what. Threads: any. */
#pragma once

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"

enum { EVENT_MAX_MESSAGES = 2 };

struct event_message {
    const char *topic;
    const char *payload;
};

/* The messages of an event (the JSON that is delivered), in the arena; how many. 0: it cannot be
 * read. */
size_t event_messages(struct arena *arena, const char *event,
                      struct event_message ret[EVENT_MAX_MESSAGES]);
