#include "proto/fleet/cbor.h"

#include <cbor.h>
#include <stdbool.h>
#include <string.h>

enum { MAX_DEPTH = 2, HEAD_BYTES = 9 };

enum item_kind { ITEM_OTHER, ITEM_TEXT, ITEM_MAP, ITEM_MAP_OPEN, ITEM_BREAK };

/* One data item as the decoder met it. */
struct item {
    enum item_kind kind;
    struct bytes text; /* borrowed from the input */
    size_t pairs;
};

struct reader {
    struct bytes in;
    size_t at;
    const char *why;
};

static void on_text(void *ctx, cbor_data data, size_t len)
{
    *(struct item *)ctx = (struct item){.kind = ITEM_TEXT, .text = bytes_of(data, len)};
}

static void on_map(void *ctx, size_t pairs)
{
    *(struct item *)ctx = (struct item){.kind = ITEM_MAP, .pairs = pairs};
}

static void on_map_open(void *ctx)
{
    ((struct item *)ctx)->kind = ITEM_MAP_OPEN;
}

static void on_break(void *ctx)
{
    ((struct item *)ctx)->kind = ITEM_BREAK;
}

static enum err fail(struct reader *r, const char *why)
{
    r->why = why;
    return ERR_INVALID;
}

/* The decoder keeps no state and allocates nothing: what a head claims costs nothing yet. */
static enum err item_next(struct reader *r, struct item *ret_item)
{
    struct cbor_callbacks callbacks = cbor_empty_callbacks;
    struct item item = {.kind = ITEM_OTHER};
    callbacks.string = on_text;
    callbacks.map_start = on_map;
    callbacks.indef_map_start = on_map_open;
    callbacks.indef_break = on_break;
    struct cbor_decoder_result done =
        cbor_stream_decode(r->in.data + r->at, r->in.len - r->at, &callbacks, &item);
    if (done.status != CBOR_DECODER_FINISHED)
        return fail(r, "ends within an item, or is no CBOR");
    r->at += done.read;
    *ret_item = item;
    return ERR_OK;
}

static enum err map_read(struct reader *r, const struct item *head, int depth, json_t *object);

static enum err value_read(struct reader *r, int depth, json_t **ret_value)
{
    struct item item;
    enum err e = item_next(r, &item);
    if (e)
        return e;
    bool map = item.kind == ITEM_MAP || item.kind == ITEM_MAP_OPEN;
    if (item.kind != ITEM_TEXT && (!map || depth == MAX_DEPTH))
        return fail(r, "a member that is neither a text string nor a map of them");
    if (item.text.len > 0 && memchr(item.text.data, '\0', item.text.len))
        return fail(r, "a text string with a NUL");
    json_t *value = map ? json_object() : json_stringn((const char *)item.text.data, item.text.len);
    if (!value)
        return map ? ERR_NO_MEMORY : fail(r, "a text string that is not UTF-8");
    e = map ? map_read(r, &item, depth + 1, value) : ERR_OK;
    if (e)
        json_decref(value);
    else
        *ret_value = value;
    return e;
}

static enum err pair_read(struct reader *r, const struct item *name, int depth, json_t *object)
{
    json_t *key = NULL, *value = NULL;
    if (name->kind != ITEM_TEXT)
        return fail(r, "a name that is no text string of definite length");
    key = json_stringn((const char *)name->text.data, name->text.len);
    if (!key)
        return fail(r, "a name that is not UTF-8");
    enum err e = ERR_OK;
    if (json_object_get(object, json_string_value(key)) ||
        strlen(json_string_value(key)) != json_string_length(key))
        e = fail(r, "a name that stands twice, or has a NUL");
    if (!e)
        e = value_read(r, depth, &value);
    if (!e && json_object_set_new(object, json_string_value(key), value) != 0)
        e = ERR_NO_MEMORY;
    json_decref(key);
    return e;
}

/* Every pair takes bytes of the input, so that a head that claims too many ends with the input. */
static enum err map_read(struct reader *r, const struct item *head, int depth, json_t *object)
{
    enum err e = ERR_OK;
    for (size_t n = 0; !e && (head->kind == ITEM_MAP_OPEN || n < head->pairs); n++) {
        struct item name;
        e = item_next(r, &name);
        if (!e && head->kind == ITEM_MAP_OPEN && name.kind == ITEM_BREAK)
            return ERR_OK;
        if (!e)
            e = pair_read(r, &name, depth, object);
    }
    return e;
}

enum err cbor_read(struct bytes in, json_t **ret_object, const char **ret_why)
{
    struct reader r = {.in = in};
    struct item head;
    json_t *object = json_object();
    enum err e = object ? item_next(&r, &head) : ERR_NO_MEMORY;
    if (!e && head.kind != ITEM_MAP && head.kind != ITEM_MAP_OPEN)
        e = fail(&r, "is no map");
    if (!e)
        e = map_read(&r, &head, 1, object);
    if (!e && r.at != in.len)
        e = fail(&r, "goes on behind its end");
    if (e)
        json_decref(object);
    else
        *ret_object = object;
    *ret_why = r.why ? r.why : "out of memory";
    return e;
}

static void head_write(struct buf *b, size_t (*encode)(size_t, unsigned char *, size_t), size_t n)
{
    unsigned char head[HEAD_BYTES];
    buf_add(b, head, encode(n, head, sizeof(head)));
}

static void text_write(struct buf *b, const char *text, size_t len)
{
    head_write(b, cbor_encode_string_start, len);
    buf_add(b, text, len);
}

void cbor_write(struct buf *b, const json_t *object)
{
    unsigned char head[HEAD_BYTES];
    void *it = json_object_iter((json_t *)(uintptr_t)object);
    head_write(b, cbor_encode_map_start, json_object_size(object));
    for (; it; it = json_object_iter_next((json_t *)(uintptr_t)object, it)) {
        const json_t *value = json_object_iter_value(it);
        text_write(b, json_object_iter_key(it), strlen(json_object_iter_key(it)));
        if (json_is_object(value))
            cbor_write(b, value);
        else if (json_is_integer(value))
            buf_add(b, head,
                    cbor_encode_uint((uint64_t)json_integer_value(value), head, sizeof(head)));
        else
            text_write(b, json_string_value(value), json_string_length(value));
    }
}
