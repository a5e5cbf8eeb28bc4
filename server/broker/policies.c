#include "broker/policies.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_SLOTS = 64, TIDY_FORMS = 256, LOAD_PARTS = 4 /* three of them full at most */ };

struct form {
    struct form *next; /* in the list of all */
    uint32_t number;
    uint32_t len;
    uint8_t data[];
};

struct policies {
    struct form **slots; /* linear probing; NULL while it is empty */
    size_t slot_count;
    size_t count;
    struct form *all;
    struct form *last;
    struct form *old; /* of a store that was cleared */
};

enum err policies_new(struct policies **ret_policies)
{
    *ret_policies = calloc(1, sizeof(**ret_policies));
    return *ret_policies ? ERR_OK : ERR_NO_MEMORY;
}

void policies_tidy(struct policies *p)
{
    for (int i = 0; p->old && i < TIDY_FORMS; i++) {
        struct form *f = p->old;
        p->old = f->next;
        free(f);
    }
}

void policies_clear(struct policies *p)
{
    if (p->last) {
        p->last->next = p->old;
        p->old = p->all;
    }
    free(p->slots);
    *p = (struct policies){.old = p->old};
}

void policies_free(struct policies *p)
{
    if (!p)
        return;
    policies_clear(p);
    while (p->old)
        policies_tidy(p);
    free(p);
}

/* The registry counts them up, so the lower bits spread well. */
static struct form **slot_of(struct form **slots, size_t count, uint32_t number)
{
    size_t at = number & (count - 1);
    while (slots[at] && slots[at]->number != number)
        at = (at + 1) & (count - 1);
    return &slots[at];
}

static enum err room_make(struct policies *p)
{
    if (p->count + 1 <= p->slot_count / LOAD_PARTS * (LOAD_PARTS - 1))
        return ERR_OK;
    size_t wide = p->slot_count ? 2 * p->slot_count : FIRST_SLOTS;
    struct form **slots = calloc(wide, sizeof(struct form *));
    if (!slots)
        return ERR_NO_MEMORY;
    for (struct form *f = p->all; f; f = f->next)
        *slot_of(slots, wide, f->number) = f;
    free(p->slots);
    p->slots = slots;
    p->slot_count = wide;
    return ERR_OK;
}

enum err policies_put(struct policies *p, uint32_t number, struct bytes form)
{
    if (policies_find(p, number).len > 0)
        return ERR_OK;
    struct form *f = malloc(sizeof(*f) + form.len);
    if (!f || room_make(p)) {
        free(f);
        return ERR_NO_MEMORY;
    }
    *f = (struct form){.number = number, .len = (uint32_t)form.len};
    memcpy(f->data, form.data, form.len);
    if (p->last)
        p->last->next = f;
    else
        p->all = f;
    p->last = f;
    *slot_of(p->slots, p->slot_count, number) = f;
    p->count++;
    return ERR_OK;
}

struct bytes policies_find(const struct policies *p, uint32_t number)
{
    const struct form *f = p->slots ? *slot_of(p->slots, p->slot_count, number) : NULL;
    return f ? bytes_of(f->data, f->len) : bytes_of(NULL, 0);
}

void policies_each(const struct policies *p,
                   void (*take)(void *arg, uint32_t number, struct bytes form), void *arg)
{
    for (const struct form *f = p->all; f; f = f->next)
        take(arg, f->number, bytes_of(f->data, f->len));
}

size_t policies_count(const struct policies *p)
{
    return p->count;
}
