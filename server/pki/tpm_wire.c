#include "pki/tpm_wire.h"

#include <string.h>

struct bytes tpm_take(struct tpm_reader *r, size_t len)
{
    struct bytes none = {0};
    if (r->broken || len > r->rest.len) {
        r->broken = true;
        return none;
    }
    struct bytes taken = bytes_of(r->rest.data, len);
    r->rest = bytes_of(r->rest.data + len, r->rest.len - len);
    return taken;
}

uint16_t tpm_take_u16(struct tpm_reader *r)
{
    struct bytes b = tpm_take(r, 2);
    return b.len == 2 ? (uint16_t)(b.data[0] << 8 | b.data[1]) : 0;
}

uint32_t tpm_take_u32(struct tpm_reader *r)
{
    uint32_t high = tpm_take_u16(r);
    return high << 16 | tpm_take_u16(r);
}

struct bytes tpm_take_2b(struct tpm_reader *r, size_t max_bytes)
{
    size_t len = tpm_take_u16(r);
    if (len > max_bytes)
        r->broken = true;
    return tpm_take(r, len);
}

bool tpm_ended(const struct tpm_reader *r)
{
    return !r->broken && r->rest.len == 0;
}

struct tpm_writer tpm_write(struct arena *arena, size_t max_bytes)
{
    struct tpm_writer w = {.data = arena_alloc(arena, max_bytes), .max_bytes = max_bytes};
    w.overflow = !w.data;
    return w;
}

void tpm_put(struct tpm_writer *w, struct bytes in)
{
    if (w->overflow || in.len > w->max_bytes - w->len) {
        w->overflow = true;
        return;
    }
    if (in.len > 0)
        memcpy(w->data + w->len, in.data, in.len);
    w->len += in.len;
}

void tpm_put_u16(struct tpm_writer *w, unsigned value)
{
    const uint8_t be[] = {(uint8_t)(value >> 8), (uint8_t)value};
    tpm_put(w, bytes_of(be, sizeof(be)));
}

void tpm_put_u32(struct tpm_writer *w, uint32_t value)
{
    tpm_put_u16(w, value >> 16);
    tpm_put_u16(w, value & 0xffff);
}

void tpm_put_2b(struct tpm_writer *w, struct bytes in)
{
    if (in.len > UINT16_MAX)
        w->overflow = true;
    tpm_put_u16(w, (unsigned)in.len);
    tpm_put(w, in);
}

enum err tpm_written(const struct tpm_writer *w, struct bytes *ret)
{
    if (w->overflow)
        return ERR_NO_MEMORY;
    *ret = bytes_of(w->data, w->len);
    return ERR_OK;
}
