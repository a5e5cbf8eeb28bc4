#include "enroll/catalog.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "enroll/snapshot.h"
#include "store/catalog_load.h"

enum {
    CHECK_EVERY_US = 1000000,
    OLD_US = 2000000,
    WAIT_MS = 500,
    TOKEN_AGAIN_US = 10000000,
    CLOCKS_PART = 1000,    /* by a thousandth, at most */
    CLOCK_SET_US = 250000, /* and by this they were set */
};

struct catalog {
    struct db *db;
    const struct signer_source *keys;
    const struct sealer *sealer; /* NULL: symmetric keys stay closed */
    pthread_mutex_t lock;        /* guards what follows */
    struct snapshot *current;
    int64_t checked_us;   /* monotonic; 0: never */
    int64_t expired_us;   /* likewise: a look that began before then has not seen our change */
    int64_t confirmed_us; /* when the registry last said that current is right */
    int64_t wall_at_us; /* the registry's time of day when the monotonic clock was 0; 0: unknown */
    int64_t wall_from_us;  /* likewise, but as early as it can have been */
    int64_t noted_us;      /* when that was noted, monotonic; 0: never */
    int64_t failed_us;     /* when an issuing key was said not to sign */
    bool stale;            /* current is replaced at the next look whatever its epoch */
    bool loading;          /* somebody is: one at a time */
    pthread_cond_t loaded; /* nobody is any more; on the monotonic clock */
};

enum err catalog_new(struct db *db, const struct signer_source *keys, struct catalog **ret_catalog)
{
    struct catalog *c = calloc(1, sizeof(*c));
    if (!c)
        return ERR_NO_MEMORY;
    c->db = db;
    c->keys = keys;
    c->confirmed_us = clock_mono_us();
    pthread_mutex_init(&c->lock, NULL);
    clock_cond_init(&c->loaded);
    *ret_catalog = c;
    return ERR_OK;
}

void catalog_free(struct catalog *c)
{
    if (!c)
        return;
    snapshot_drop(c->current);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->loaded);
    free(c);
}

void catalog_unseal(struct catalog *c, const struct sealer *sealer)
{
    c->sealer = sealer;
}

/* How long ago the registry was asked about it last. */
static struct snapshot *current_take(struct catalog *c, int64_t *ret_age_us)
{
    pthread_mutex_lock(&c->lock);
    struct snapshot *s = c->current;
    if (s)
        atomic_fetch_add(&s->references, 1);
    *ret_age_us = s ? clock_mono_us() - c->checked_us : INT64_MAX;
    pthread_mutex_unlock(&c->lock);
    return s;
}

/* With the lock held: the latest that is certain. A look whose answer was long in coming says less
 * than those before it, as far as the two clocks cannot have parted since; one that says something
 * else altogether tells of a clock that was set. */
static int64_t from_us(const struct catalog *c, int64_t looked_from_us, int64_t now_us)
{
    int64_t before_us = c->wall_from_us - (now_us - c->noted_us) / CLOCKS_PART;
    bool same = before_us - looked_from_us < CLOCK_SET_US;
    return c->noted_us > 0 && same && before_us > looked_from_us ? before_us : looked_from_us;
}

static void time_note(struct catalog *c, int64_t looked_us, int64_t wall_us)
{
    int64_t now_us = clock_mono_us();
    pthread_mutex_lock(&c->lock);
    c->wall_at_us = wall_us - (looked_us + (now_us - looked_us) / 2);
    c->wall_from_us = from_us(c, wall_us - now_us, now_us);
    c->noted_us = now_us;
    pthread_mutex_unlock(&c->lock);
}

/* Installs a snapshot (NULL: the present one is still right) and notes the time of the look. */
static void current_install(struct catalog *c, struct snapshot *s, int64_t looked_us, bool right)
{
    pthread_mutex_lock(&c->lock);
    struct snapshot *old = s ? c->current : NULL;
    if (s)
        c->current = s;
    if (looked_us > c->expired_us)
        c->checked_us = looked_us;
    if (right)
        c->confirmed_us = looked_us;
    pthread_mutex_unlock(&c->lock);
    snapshot_drop(old);
}

/* Whether a reload was asked for; it is asked for no more. */
static bool stale_take(struct catalog *c)
{
    pthread_mutex_lock(&c->lock);
    bool stale = c->stale;
    c->stale = false;
    pthread_mutex_unlock(&c->lock);
    return stale;
}

static void stale_mark(struct catalog *c)
{
    pthread_mutex_lock(&c->lock);
    c->stale = true;
    pthread_mutex_unlock(&c->lock);
}

/* Having entered: looks at the epoch and reloads when it has moved. */
static void refresh(struct catalog *c, const struct snapshot *present)
{
    int64_t looked_us = clock_mono_us();
    int64_t epoch = 0, wall_us = 0;
    struct snapshot *loaded = NULL;
    bool again = present && present->lacks_key && looked_us - present->loaded_us >= TOKEN_AGAIN_US;
    bool stale = stale_take(c) || again;
    enum err e = catalog_epoch(c->db, &epoch, &wall_us);
    if (!e)
        time_note(c, looked_us, wall_us);
    if (!e && (stale || !present || present->epoch != epoch))
        e = snapshot_load(c->db, c->keys, c->sealer, &loaded);
    if (e)
        log_text(LOG_WARN, "catalog.refresh_failed", "error", err_name(e));
    if (!e || present)
        current_install(c, loaded, e ? clock_mono_us() : looked_us, !e);
    if (e && stale)
        stale_mark(c);
}

/* Whether the caller is to look, and then loading_leave. While another one loads, what was right a
 * moment ago serves; what is older is waited for, but not for long: the database may be away. Only
 * who has nothing at all waits until the other one is done. */
static bool loading_enter(struct catalog *c, int64_t age_us)
{
    struct timespec until = clock_deadline(WAIT_MS * 1000L);
    int rc = age_us < OLD_US ? ETIMEDOUT : 0;
    pthread_mutex_lock(&c->lock);
    while (c->loading && rc != ETIMEDOUT)
        rc = age_us == INT64_MAX ? pthread_cond_wait(&c->loaded, &c->lock)
                                 : pthread_cond_timedwait(&c->loaded, &c->lock, &until);
    bool mine = !c->loading;
    if (mine)
        c->loading = true;
    pthread_mutex_unlock(&c->lock);
    return mine;
}

static void loading_leave(struct catalog *c)
{
    pthread_mutex_lock(&c->lock);
    c->loading = false;
    pthread_cond_broadcast(&c->loaded);
    pthread_mutex_unlock(&c->lock);
}

enum err catalog_get(struct catalog *c, struct snapshot **ret_snapshot)
{
    int64_t age_us = 0;
    struct snapshot *s = current_take(c, &age_us);
    if (age_us >= CHECK_EVERY_US && loading_enter(c, age_us)) {
        snapshot_drop(s);
        s = current_take(c, &age_us);
        if (age_us >= CHECK_EVERY_US) {
            refresh(c, s);
            snapshot_drop(s);
            s = current_take(c, &age_us);
        }
        loading_leave(c);
    }
    if (!s)
        return ERR_UNAVAILABLE;
    *ret_snapshot = s;
    return ERR_OK;
}

enum err catalog_peek(struct catalog *c, struct snapshot **ret_snapshot)
{
    int64_t age_us = 0;
    struct snapshot *s = current_take(c, &age_us);
    if (!s)
        return ERR_UNAVAILABLE;
    *ret_snapshot = s;
    return ERR_OK;
}

void catalog_expire(struct catalog *c)
{
    pthread_mutex_lock(&c->lock);
    c->checked_us = 0;
    c->expired_us = clock_mono_us();
    pthread_mutex_unlock(&c->lock);
}

void catalog_reload(struct catalog *c)
{
    stale_mark(c);
    catalog_expire(c);
}

void catalog_key_failed(struct catalog *c)
{
    int64_t now_us = clock_mono_us();
    pthread_mutex_lock(&c->lock);
    bool due = now_us - c->failed_us >= TOKEN_AGAIN_US;
    if (due)
        c->failed_us = now_us;
    pthread_mutex_unlock(&c->lock);
    if (due)
        catalog_reload(c);
}

void catalog_look(struct catalog *c, int64_t *ret_epoch, int64_t *ret_age_us)
{
    pthread_mutex_lock(&c->lock);
    *ret_epoch = c->current ? c->current->epoch : 0;
    *ret_age_us = clock_mono_us() - c->confirmed_us;
    pthread_mutex_unlock(&c->lock);
}

int64_t catalog_registry_us(struct catalog *c, int64_t mono_us)
{
    pthread_mutex_lock(&c->lock);
    int64_t from_us = c->wall_from_us;
    pthread_mutex_unlock(&c->lock);
    return from_us + mono_us;
}

double catalog_clock_ahead_s(struct catalog *c)
{
    pthread_mutex_lock(&c->lock);
    int64_t wall_at_us = c->wall_at_us;
    pthread_mutex_unlock(&c->lock);
    return wall_at_us == 0 ? 0 : (double)(clock_wall_us() - wall_at_us - clock_mono_us()) / 1e6;
}

enum err catalog_clock_check(struct catalog *c, unsigned most_s, struct fault *fault)
{
    double ahead_s = catalog_clock_ahead_s(c);
    if (most_s == 0 || (ahead_s <= most_s && -ahead_s <= most_s))
        return ERR_OK;
    return fault_set(fault, FAULT_CLOCK_WRONG, "this server's clock is %.0f s %s the registry's",
                     ahead_s < 0 ? -ahead_s : ahead_s, ahead_s < 0 ? "behind" : "ahead of");
}
