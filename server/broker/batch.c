#include "broker/batch.h"

#include "base/secret.h"
#include "model/policy.h"

enum { MAGIC_BYTES = sizeof(WIRE_BATCH_MAGIC) - 1 };

static uint64_t integer_decode(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

/* As the registry has them; in particular nothing that means something in a topic. */
static bool thing_valid(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!letter && !(c >= '0' && c <= '9') && c != ':' && c != '_' && c != '-')
            return false;
    }
    return len <= WIRE_MAX_THING_CHARS;
}

bool grants_pair(struct bytes *rest, struct bytes *ret_name, struct bytes *ret_value)
{
    struct bytes parts[2];
    for (int i = 0; i < 2; i++) {
        if (rest->len == 0 || rest->len - 1 < rest->data[0])
            return false;
        parts[i] = bytes_of(rest->data + 1, rest->data[0]);
        *rest = bytes_of(rest->data + 1 + parts[i].len, rest->len - 1 - parts[i].len);
    }
    *ret_name = parts[0];
    *ret_value = parts[1];
    return true;
}

bool grants_decode(struct bytes in, struct grants *ret_grants)
{
    struct bytes name, value;
    *ret_grants = (struct grants){0};
    if (in.len == 0)
        return true;
    size_t numbers = (size_t)in.data[0] * 4;
    if (in.data[0] > POLICY_MAX_PER_CERTIFICATE || in.len - 1 < numbers)
        return false;
    ret_grants->policies = bytes_of(in.data + 1, numbers);
    ret_grants->pairs = bytes_of(in.data + 1 + numbers, in.len - 1 - numbers);
    struct bytes rest = ret_grants->pairs;
    while (rest.len > 0) {
        if (!grants_pair(&rest, &name, &value))
            return false;
    }
    return true;
}

static uint32_t number_decode(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

uint32_t grants_policy(const struct grants *g, size_t i)
{
    return number_decode(g->policies.data + 4 * i);
}

static size_t length_decode(const uint8_t *p)
{
    return (size_t)p[0] << 8 | p[1];
}

static bool certificate_valid(const struct batch_entry *e, uint8_t state)
{
    struct grants grants;
    switch (state) {
    case WIRE_ABSENT:
    case WIRE_CLAIM:
        return e->thing.len == 0 && e->grants.len == 0;
    case WIRE_OPERATIONAL:
    case WIRE_UNUSED:
        return thing_valid((const char *)e->thing.data, e->thing.len) &&
               e->grants.len <= WIRE_MAX_GRANTS_BYTES && grants_decode(e->grants, &grants);
    }
    return false;
}

static enum err certificate_decode(struct bytes *rest, struct batch_entry *e)
{
    const uint8_t *p = rest->data;
    if (rest->len < WIRE_ENTRY_BYTES)
        return ERR_INVALID;
    size_t thing = p[33], grants = length_decode(p + 34), len = WIRE_ENTRY_BYTES + thing + grants;
    if (rest->len < len)
        return ERR_INVALID;
    e->kind = BATCH_CERTIFICATE;
    e->fingerprint = p + 1;
    e->thing = bytes_of(p + WIRE_ENTRY_BYTES, thing);
    e->grants = bytes_of(p + WIRE_ENTRY_BYTES + thing, grants);
    if (!certificate_valid(e, p[0]))
        return ERR_INVALID;
    e->state = (enum wire_state)p[0];
    *rest = bytes_of(p + len, rest->len - len);
    return ERR_OK;
}

/* What has a head of so many bytes, the last two of which are the length of the body. */
static enum err body_decode(struct bytes *rest, size_t head, struct batch_entry *e)
{
    if (rest->len < head)
        return ERR_INVALID;
    size_t len = length_decode(rest->data + head - 2);
    if (rest->len - head < len)
        return ERR_INVALID;
    e->body = bytes_of(rest->data + head, len);
    *rest = bytes_of(rest->data + head + len, rest->len - head - len);
    return ERR_OK;
}

enum err batch_entry_decode(struct bytes *rest, struct batch_entry *ret_entry)
{
    struct batch_entry entry = {0};
    const uint8_t *p = rest->data;
    enum err e;
    if (rest->len > 0 && p[0] == WIRE_POLICY) {
        entry.kind = BATCH_POLICY;
        e = body_decode(rest, WIRE_POLICY_BYTES, &entry);
        entry.policy = e ? 0 : number_decode(p + 1);
        if (!e && !policy_valid(entry.body))
            e = ERR_INVALID;
    } else if (rest->len > 0 && p[0] == WIRE_CA) {
        entry.kind = BATCH_CA;
        e = body_decode(rest, WIRE_CA_BYTES, &entry);
        if (!e && (entry.body.len == 0 || entry.body.len > WIRE_MAX_CA_BYTES))
            e = ERR_INVALID;
    } else {
        e = certificate_decode(rest, &entry);
    }
    if (!e)
        *ret_entry = entry;
    return e;
}

enum err batch_decode(struct bytes in, struct batch *ret_batch)
{
    struct batch_entry e;
    if (in.len < WIRE_BATCH_HEADER_BYTES || in.len > WIRE_MAX_BATCH_BYTES ||
        memcmp(in.data, WIRE_BATCH_MAGIC, MAGIC_BYTES) != 0)
        return ERR_INVALID;
    struct batch b = {
        .counter = integer_decode(in.data + MAGIC_BYTES),
        .position = (int64_t)integer_decode(in.data + MAGIC_BYTES + 8),
        .flags = in.data[MAGIC_BYTES + 16],
        .entries = bytes_of(in.data + WIRE_BATCH_HEADER_BYTES, in.len - WIRE_BATCH_HEADER_BYTES),
    };
    if (b.position < 0 || (b.flags & ~(WIRE_BATCH_CLEAR | WIRE_BATCH_READY | WIRE_BATCH_CAS)) != 0)
        return ERR_INVALID;
    size_t certificates = 0;
    for (struct bytes rest = b.entries; rest.len > 0; b.count++) {
        if (batch_entry_decode(&rest, &e))
            return ERR_INVALID;
        certificates += e.kind == BATCH_CERTIFICATE;
        if (certificates > WIRE_MAX_BATCH_ENTRIES)
            return ERR_INVALID;
    }
    *ret_batch = b;
    return ERR_OK;
}
