#include "broker/table.h"

#include <stdlib.h>
#include <string.h>

#include "broker/mix.h"

/*
 * Extendible hashing: the upper bits of the hash choose a segment by a directory, the lower ones a
 * slot in it, with linear probing. A full segment is split in two; only its own entries move.
 */
enum {
    KEY_BYTES = TABLE_KEY_BYTES,
    SLOTS = 512,
    FULL = SLOTS / 8 * 7,
    MAX_DEPTH = 16, /* of the directory: some 20 million certificates */
    TIDY_SEGMENTS = 16,
    NAMES_SLACK_BYTES = 64,
};

struct slot {
    uint8_t key[KEY_BYTES];
    uint32_t name;   /* where it begins in the segment's names */
    uint16_t length; /* of the name, a NUL and the grants; a NUL follows in any case */
    uint8_t state;   /* WIRE_ABSENT: the slot is free */
    uint8_t thing;   /* length of the name alone */
};

struct names {
    char *text;
    uint32_t len;
    uint32_t cap;
};

struct segment {
    struct segment *next;
    unsigned depth; /* how many bits of the hash its entries have in common */
    unsigned used;
    struct names names; /* of changed and removed entries too, until it is rebuilt */
    struct slot slots[SLOTS];
};

struct table {
    struct mix_key key;
    struct segment **directory; /* NULL while it is empty */
    unsigned depth;
    struct segment *first, *last; /* all segments */
    struct segment *old;          /* of tables that were cleared */
    size_t count;
    size_t bytes;
};

enum err table_new(struct table **ret_table)
{
    struct table *t = calloc(1, sizeof(*t));
    if (!t)
        return ERR_NO_MEMORY;
    if (secret_random(&t->key, sizeof(t->key))) {
        free(t);
        return ERR_SYSTEM;
    }
    *ret_table = t;
    return ERR_OK;
}

static void segment_free(struct table *t, struct segment *s)
{
    t->bytes -= sizeof(*s) + s->names.cap;
    free(s->names.text);
    free(s);
}

void table_tidy(struct table *t)
{
    for (int i = 0; t->old && i < TIDY_SEGMENTS; i++) {
        struct segment *s = t->old;
        t->old = s->next;
        segment_free(t, s);
    }
}

void table_clear(struct table *t)
{
    if (t->last) {
        t->last->next = t->old;
        t->old = t->first;
    }
    if (t->directory)
        t->bytes -= sizeof(struct segment *) << t->depth;
    free(t->directory);
    t->directory = NULL;
    t->first = t->last = NULL;
    t->depth = 0;
    t->count = 0;
}

void table_free(struct table *t)
{
    if (!t)
        return;
    table_clear(t);
    while (t->old)
        table_tidy(t);
    free(t);
}

static uint64_t hash_of(const struct table *t, const uint8_t *key)
{
    return mix_bytes(&t->key, key, KEY_BYTES);
}

/* The upper bits, none of them at depth 0. */
static size_t prefix_of(uint64_t hash, unsigned depth)
{
    return depth == 0 ? 0 : (size_t)(hash >> (64 - depth));
}

static struct segment *segment_of(const struct table *t, uint64_t hash)
{
    return t->directory ? t->directory[prefix_of(hash, t->depth)] : NULL;
}

/* The slot of the key, or the free one where it would be. */
static struct slot *slot_of(struct segment *s, uint64_t hash, const uint8_t *key)
{
    size_t at = hash % SLOTS;
    while (s->slots[at].state != WIRE_ABSENT && memcmp(s->slots[at].key, key, KEY_BYTES) != 0)
        at = (at + 1) % SLOTS;
    return &s->slots[at];
}

static size_t names_live(const struct segment *s)
{
    size_t bytes = 0;
    for (size_t i = 0; i < SLOTS; i++) {
        if (s->slots[i].state != WIRE_ABSENT && s->slots[i].length > 0)
            bytes += s->slots[i].length + 1u;
    }
    return bytes;
}

static enum err names_alloc(size_t bytes, struct names *ret_names)
{
    size_t cap = bytes + bytes / 4 + NAMES_SLACK_BYTES;
    char *text = malloc(cap);
    if (!text)
        return ERR_NO_MEMORY;
    *ret_names = (struct names){.text = text, .cap = (uint32_t)cap};
    return ERR_OK;
}

/* There is room. */
static uint32_t names_append(struct names *n, const char *text, uint16_t len)
{
    uint32_t at = n->len;
    memcpy(n->text + at, text, len);
    n->text[at + len] = '\0';
    n->len += len + 1u;
    return at;
}

/* Makes room for another name, leaving out what is no longer used. */
static enum err names_reserve(struct table *t, struct segment *s, uint16_t len)
{
    struct names fresh;
    if (len == 0 || s->names.len + len + 1u <= s->names.cap)
        return ERR_OK;
    enum err e = names_alloc(names_live(s) + len + 1u, &fresh);
    if (e)
        return e;
    for (size_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &s->slots[i];
        if (slot->state != WIRE_ABSENT && slot->length > 0)
            slot->name = names_append(&fresh, s->names.text + slot->name, slot->length);
    }
    t->bytes += fresh.cap;
    t->bytes -= s->names.cap;
    free(s->names.text);
    s->names = fresh;
    return ERR_OK;
}

static struct segment *segment_new(struct table *t, unsigned depth)
{
    struct segment *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->depth = depth;
    if (t->last)
        t->last->next = s;
    else
        t->first = s;
    t->last = s;
    t->bytes += sizeof(*s);
    return s;
}

static enum err directory_begin(struct table *t)
{
    struct segment **directory = malloc(sizeof(*directory));
    struct segment *s = directory ? segment_new(t, 0) : NULL;
    if (!s) {
        free(directory);
        return ERR_NO_MEMORY;
    }
    directory[0] = s;
    t->directory = directory;
    t->bytes += sizeof(*directory);
    return ERR_OK;
}

static enum err directory_double(struct table *t)
{
    size_t count = (size_t)1 << t->depth;
    struct segment **wide = t->depth < MAX_DEPTH ? malloc(2 * count * sizeof(*wide)) : NULL;
    if (!wide)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        wide[2 * i] = wide[2 * i + 1] = t->directory[i];
    free(t->directory);
    t->directory = wide;
    t->depth++;
    t->bytes += count * sizeof(*wide);
    return ERR_OK;
}

static void entry_move(struct segment *to, uint64_t hash, const struct slot *from,
                       const struct names *names)
{
    struct slot *slot = slot_of(to, hash, from->key);
    *slot = *from;
    if (from->length > 0)
        slot->name = names_append(&to->names, names->text + from->name, from->length);
    to->used++;
}

/* Points the upper half of the segment's part of the directory to the other one. */
static void directory_share(struct table *t, uint64_t hash, const struct segment *s,
                            struct segment *upper)
{
    size_t part = (size_t)1 << (t->depth - s->depth);
    size_t begin = prefix_of(hash, s->depth) * part;
    for (size_t i = begin + part / 2; i < begin + part; i++)
        t->directory[i] = upper;
}

/* Whether an entry goes to the upper half of a segment of that depth. */
static bool is_upper(uint64_t hash, unsigned depth)
{
    return (hash >> (63 - depth)) & 1;
}

/* Names for both halves, of the size each needs. */
static enum err names_split(const struct table *t, const struct segment *s, struct names ret[2])
{
    size_t bytes[2] = {0, 0};
    for (size_t i = 0; i < SLOTS; i++) {
        const struct slot *slot = &s->slots[i];
        if (slot->state != WIRE_ABSENT)
            bytes[is_upper(hash_of(t, slot->key), s->depth)] += slot->length + 1u;
    }
    struct names lower, upper;
    if (names_alloc(bytes[0], &lower))
        return ERR_NO_MEMORY;
    if (names_alloc(bytes[1], &upper)) {
        free(lower.text);
        return ERR_NO_MEMORY;
    }
    ret[0] = lower;
    ret[1] = upper;
    return ERR_OK;
}

static void entries_share(struct table *t, struct segment *halves[2], struct names names[2])
{
    struct slot slots[SLOTS];
    struct names old = halves[0]->names;
    unsigned depth = halves[0]->depth;
    memcpy(slots, halves[0]->slots, sizeof(slots));
    memset(halves[0]->slots, 0, sizeof(halves[0]->slots));
    for (int i = 0; i < 2; i++) {
        halves[i]->names = names[i];
        halves[i]->used = 0;
        halves[i]->depth = depth + 1;
        t->bytes += names[i].cap;
    }
    for (size_t i = 0; i < SLOTS; i++) {
        uint64_t hash = hash_of(t, slots[i].key);
        if (slots[i].state != WIRE_ABSENT)
            entry_move(halves[is_upper(hash, depth)], hash, &slots[i], &old);
    }
    t->bytes -= old.cap;
    free(old.text);
}

static enum err segment_split(struct table *t, struct segment *s, uint64_t hash)
{
    struct names names[2];
    if (s->depth == t->depth && directory_double(t))
        return ERR_NO_MEMORY;
    if (names_split(t, s, names))
        return ERR_NO_MEMORY;
    struct segment *upper = segment_new(t, s->depth);
    if (!upper) {
        free(names[0].text);
        free(names[1].text);
        return ERR_NO_MEMORY;
    }
    directory_share(t, hash, s, upper);
    entries_share(t, (struct segment *[2]){s, upper}, names);
    return ERR_OK;
}

/* A segment for the key with a free slot and room for its name. */
static enum err room_make(struct table *t, uint64_t hash, uint16_t len,
                          struct segment **ret_segment)
{
    if (!t->directory && directory_begin(t))
        return ERR_NO_MEMORY;
    while (segment_of(t, hash)->used >= FULL) {
        enum err e = segment_split(t, segment_of(t, hash), hash);
        if (e)
            return e;
    }
    struct segment *s = segment_of(t, hash);
    enum err e = names_reserve(t, s, len);
    if (e == ERR_OK)
        *ret_segment = s;
    return e;
}

/* A certificate's texts as they are kept, one behind the other. */
struct packed {
    char text[WIRE_MAX_THING_CHARS + 1 + WIRE_MAX_GRANTS_BYTES];
    uint16_t len;
};

static void value_pack(const struct table_value *v, struct packed *p)
{
    if (v->thing.len > 0)
        memcpy(p->text, v->thing.data, v->thing.len);
    p->len = (uint16_t)v->thing.len;
    if (v->grants.len == 0)
        return;
    p->text[p->len] = '\0';
    memcpy(p->text + p->len + 1, v->grants.data, v->grants.len);
    p->len = (uint16_t)(p->len + 1 + v->grants.len);
}

static void slot_fill(struct segment *s, struct slot *slot, const uint8_t *key,
                      const struct packed *p)
{
    memcpy(slot->key, key, KEY_BYTES);
    slot->length = p->len;
    slot->name = p->len > 0 ? names_append(&s->names, p->text, p->len) : 0;
}

enum err table_put(struct table *t, const uint8_t fingerprint[SHA256_BYTES],
                   const struct table_value *value)
{
    uint64_t hash = hash_of(t, fingerprint);
    struct segment *s = NULL;
    struct packed packed;
    if (value->thing.len > WIRE_MAX_THING_CHARS || value->grants.len > WIRE_MAX_GRANTS_BYTES ||
        value->state == WIRE_ABSENT)
        return ERR_INVALID;
    value_pack(value, &packed);
    enum err e = room_make(t, hash, packed.len, &s);
    if (e)
        return e;
    struct slot *slot = slot_of(s, hash, fingerprint);
    bool there = slot->state != WIRE_ABSENT;
    bool same =
        there && slot->length == packed.len &&
        (packed.len == 0 || memcmp(s->names.text + slot->name, packed.text, packed.len) == 0);
    if (!same)
        slot_fill(s, slot, fingerprint, &packed);
    slot->state = (uint8_t)value->state;
    slot->thing = (uint8_t)value->thing.len;
    s->used += !there;
    t->count += !there;
    return ERR_OK;
}

/* Closes the gap, so that no probe ends before its key (Knuth 6.4, algorithm R). */
static void slot_close(const struct table *t, struct segment *s, size_t gap)
{
    for (size_t i = (gap + 1) % SLOTS; s->slots[i].state != WIRE_ABSENT; i = (i + 1) % SLOTS) {
        size_t home = hash_of(t, s->slots[i].key) % SLOTS;
        if ((i + SLOTS - home) % SLOTS < (i + SLOTS - gap) % SLOTS)
            continue;
        s->slots[gap] = s->slots[i];
        gap = i;
    }
    s->slots[gap].state = WIRE_ABSENT;
}

bool table_remove(struct table *t, const uint8_t fingerprint[SHA256_BYTES])
{
    uint64_t hash = hash_of(t, fingerprint);
    struct segment *s = segment_of(t, hash);
    struct slot *slot = s ? slot_of(s, hash, fingerprint) : NULL;
    if (!slot || slot->state == WIRE_ABSENT)
        return false;
    slot_close(t, s, (size_t)(slot - s->slots));
    s->used--;
    t->count--;
    return true;
}

static struct table_entry entry_of(const struct segment *s, const struct slot *slot)
{
    const char *text = slot->length > 0 ? s->names.text + slot->name : "";
    size_t behind = slot->thing + 1u;
    return (struct table_entry){
        .state = (enum wire_state)slot->state,
        .thing = text,
        .grants = slot->length > behind ? bytes_of(text + behind, slot->length - behind)
                                        : bytes_of(NULL, 0),
    };
}

bool table_find(const struct table *t, const uint8_t fingerprint[SHA256_BYTES],
                struct table_entry *ret_entry)
{
    uint64_t hash = hash_of(t, fingerprint);
    struct segment *s = segment_of(t, hash);
    const struct slot *slot = s ? slot_of(s, hash, fingerprint) : NULL;
    if (!slot || slot->state == WIRE_ABSENT)
        return false;
    *ret_entry = entry_of(s, slot);
    return true;
}

void table_each(const struct table *t,
                void (*take)(void *arg, const uint8_t key[TABLE_KEY_BYTES],
                             const struct table_entry *entry),
                void *arg)
{
    for (const struct segment *s = t->first; s; s = s->next) {
        for (size_t i = 0; i < SLOTS; i++) {
            const struct slot *slot = &s->slots[i];
            const struct table_entry entry = entry_of(s, slot);
            if (slot->state != WIRE_ABSENT)
                take(arg, slot->key, &entry);
        }
    }
}

size_t table_count(const struct table *t)
{
    return t->count;
}

size_t table_bytes(const struct table *t)
{
    return t->bytes;
}
