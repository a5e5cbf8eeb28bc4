/*
 * Events on their way from the outbox to who is told of them (schema/0017_events.sql). Threads:
 * any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "store/db.h"
#include "store/statements.h"

enum { EVENT_MAX_BATCH = 100 };

struct event_sink {
    int64_t id;
    const char *name;
    const char *url; /* NULL: the broker's topics */
};

/* All sinks, in the arena. */
enum err event_sinks_load(struct db *db, struct arena *arena, struct event_sink **ret_sinks,
                          size_t *ret_count) MUST_CHECK;

struct event_row {
    const char *retry; /* numbers, as text */
    int64_t xid;       /* 0: it is tried again */
    int64_t id;
    const char *key;
    const char *name;  /* the same at every repetition */
    const char *event; /* JSON */
    const char *attempts;
    bool behind;  /* another of its key waits */
    bool matches; /* the sink wants it */
};

/* Takes the sink for me and reads what is next. ERR_CONFLICT: it is another's, paused, or not to be
 * asked yet. */
enum err event_batch_load(struct db *db, struct arena *arena, int64_t sink, const char *me,
                          struct event_row **ret_rows, size_t *ret_count) MUST_CHECK;

/* Writes down what became of it: results as muster.event_done has them; to_xid 0: no new event was
 * taken over; away NULL: the sink was there. ERR_CONFLICT: the sink is another's meanwhile. */
enum err event_done(struct db *db, struct arena *arena, int64_t sink, const char *me,
                    const char *results, int64_t to_xid, int64_t to_id,
                    const char *away) MUST_CHECK;

/* Leaves all sinks to other replicas, at the end. */
enum err event_leave(struct db *db, const char *me) MUST_CHECK;

extern const struct stmt_set event_statements;
