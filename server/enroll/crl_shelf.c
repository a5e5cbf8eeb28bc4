#include "enroll/crl_shelf.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { PLACES = 256, LOOK_US = 1000000 };

struct place {
    struct crl_signed crl; /* der.data is ours; NULL: free */
    int64_t looked_us;     /* monotonic: when the registry last said that it is the latest */
};

struct crl_shelf {
    pthread_mutex_t lock; /* guards what follows */
    struct place places[PLACES];
    size_t next; /* to be given to somebody else */
};

enum err crl_shelf_new(struct crl_shelf **ret_shelf)
{
    struct crl_shelf *s = calloc(1, sizeof(*s));
    if (!s)
        return ERR_NO_MEMORY;
    pthread_mutex_init(&s->lock, NULL);
    *ret_shelf = s;
    return ERR_OK;
}

static void place_clear(struct place *p)
{
    free((void *)(uintptr_t)p->crl.der.data);
    *p = (struct place){0};
}

void crl_shelf_free(struct crl_shelf *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < PLACES; i++)
        place_clear(&s->places[i]);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static bool same_name(const struct crl_name *a, const struct crl_name *b)
{
    return a->issuer_id == b->issuer_id && a->shards == b->shards && a->shard == b->shard &&
           a->delta == b->delta;
}

/* With the lock held. */
static struct place *place_find(struct crl_shelf *s, const struct crl_name *name)
{
    for (size_t i = 0; i < PLACES; i++) {
        if (s->places[i].crl.der.data && same_name(&s->places[i].crl.name, name))
            return &s->places[i];
    }
    return NULL;
}

/* With the lock held: a copy, as the place may be given away meanwhile. */
static enum err place_copy(const struct place *p, struct arena *arena, struct crl_signed *ret)
{
    const void *copy = arena_copy(arena, p->crl.der.data, p->crl.der.len);
    *ret = p->crl;
    ret->der = bytes_of(copy, p->crl.der.len);
    return copy ? ERR_OK : ERR_NO_MEMORY;
}

static void put(struct crl_shelf *s, const struct crl_signed *crl)
{
    uint8_t *copy = malloc(crl->der.len);
    if (!copy)
        return;
    memcpy(copy, crl->der.data, crl->der.len);
    pthread_mutex_lock(&s->lock);
    struct place *p = place_find(s, &crl->name);
    if (!p) {
        p = &s->places[s->next];
        s->next = (s->next + 1) % PLACES;
    }
    place_clear(p);
    p->crl = *crl;
    p->crl.der = bytes_of(copy, crl->der.len);
    p->looked_us = clock_mono_us();
    pthread_mutex_unlock(&s->lock);
}

/* ERR_NOT_FOUND when there is none here, or one that must be looked after: *ret_number then. */
static enum err here(struct crl_shelf *s, const struct crl_name *name, bool confirmed,
                     struct arena *arena, struct crl_signed *ret)
{
    enum err e = ERR_NOT_FOUND;
    pthread_mutex_lock(&s->lock);
    struct place *p = place_find(s, name);
    if (p && confirmed)
        p->looked_us = clock_mono_us();
    if (p && clock_mono_us() - p->looked_us < LOOK_US)
        e = place_copy(p, arena, ret);
    pthread_mutex_unlock(&s->lock);
    return e;
}

static int64_t number_here(struct crl_shelf *s, const struct crl_name *name)
{
    pthread_mutex_lock(&s->lock);
    const struct place *p = place_find(s, name);
    int64_t number = p ? p->crl.number : 0;
    pthread_mutex_unlock(&s->lock);
    return number;
}

enum err crl_shelf_get(struct crl_shelf *s, struct db *db, const struct crl_name *name,
                       struct arena *arena, struct crl_signed *ret_crl)
{
    struct crl_signed latest;
    enum err e = here(s, name, false, arena, ret_crl);
    if (e != ERR_NOT_FOUND)
        return e;
    int64_t number = number_here(s, name);
    e = revocation_crl_look(db, name, &latest);
    if (number > 0 && (e == ERR_UNAVAILABLE || (!e && latest.number == number)))
        return here(s, name, true, arena, ret_crl);
    if (!e)
        e = revocation_crl_load(db, name, arena, ret_crl);
    if (!e)
        put(s, ret_crl);
    return e;
}
