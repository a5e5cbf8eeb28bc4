#include "proto/fleet/payload.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/secret.h"
#include "proto/fleet/cbor.h"

enum { MAX_ANSWER_BYTES = 128 * 1024 };

static enum err malformed(struct fault *fault, const char *what, const char *why)
{
    return fault_set(fault, FAULT_REQUEST_MALFORMED, "the %s payload %.160s", what, why);
}

static enum err json_read(struct bytes in, json_t **ret_object, struct fault *fault)
{
    json_error_t why = {.text = ""};
    json_t *object = json_loadb((const char *)in.data, in.len, JSON_REJECT_DUPLICATES, &why);
    if (!object)
        return fault_set(fault, FAULT_REQUEST_MALFORMED,
                         "the JSON payload: line %d, column %d: %.150s", why.line, why.column,
                         why.text);
    if (!json_is_object(object)) {
        json_decref(object);
        return malformed(fault, "JSON", "is no object");
    }
    *ret_object = object;
    return ERR_OK;
}

enum err payload_decode(enum fleet_format format, struct bytes in, json_t **ret_object,
                        struct fault *fault)
{
    const char *why = NULL;
    if (in.len > FLEET_MAX_PAYLOAD_BYTES)
        return fault_set(fault, FAULT_REQUEST_TOO_LARGE, "at most %d bytes",
                         FLEET_MAX_PAYLOAD_BYTES);
    if (in.len == 0) {
        json_t *empty = json_object();
        if (!empty)
            return fault_set(fault, FAULT_INTERNAL, "out of memory");
        *ret_object = empty;
        return ERR_OK;
    }
    if (format == FLEET_JSON)
        return json_read(in, ret_object, fault);
    enum err e = cbor_read(in, ret_object, &why);
    if (e == ERR_NO_MEMORY)
        return fault_set(fault, FAULT_INTERNAL, "out of memory");
    return e ? malformed(fault, "CBOR", why) : ERR_OK;
}

static enum err bytes_take(struct arena *arena, const void *data, size_t len, struct bytes *ret)
{
    const void *copy = arena_copy(arena, data, len);
    if (!copy)
        return ERR_NO_MEMORY;
    *ret = bytes_of(copy, len);
    return ERR_OK;
}

enum err payload_encode(enum fleet_format format, const json_t *object, struct arena *arena,
                        struct bytes *ret_out)
{
    _cleanup_(buf_donep) struct buf b = {0};
    if (format == FLEET_CBOR) {
        buf_init(&b, MAX_ANSWER_BYTES);
        cbor_write(&b, object);
        return b.overflow ? ERR_NO_MEMORY : bytes_take(arena, b.data, b.len, ret_out);
    }
    char *text = json_dumps(object, JSON_COMPACT);
    enum err e = text ? bytes_take(arena, text, strlen(text), ret_out) : ERR_NO_MEMORY;
    if (text)
        secret_cleanse(text, strlen(text));
    free(text);
    return e;
}
