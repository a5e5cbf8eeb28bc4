/* Payloads of fleet provisioning: the first byte says which format; what was read is written again
 * and read once more as the same. A text input is also tried as a topic. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "proto/fleet/payload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A member of another kind than text or an object of texts is never written. */
static bool writable(json_t *object, int depth)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (json_is_object(value) ? depth > 0 || !writable(value, depth + 1)
                                  : !json_is_string(value))
            return false;
    }
    return true;
}

static void again(enum fleet_format format, json_t *object)
{
    struct arena arena;
    struct bytes out;
    struct fault fault = {0};
    json_t *second = NULL;
    arena_init(&arena, 1 << 20);
    if (payload_encode(format, object, &arena, &out))
        abort();
    enum err e = payload_decode(format, out, &second, &fault);
    if (e ? fault.code != FAULT_REQUEST_TOO_LARGE : !json_equal(object, second))
        abort();
    json_decref(second);
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fault fault = {0};
    struct fleet_operation op;
    json_t *object = NULL;
    if (len == 0)
        return 0;
    enum fleet_format format = data[0] & 1 ? FLEET_CBOR : FLEET_JSON;
    char *topic = strndup((const char *)data, len);
    (void)!fleet_topic_parse(topic, &op);
    free(topic);
    if (payload_decode(format, bytes_of(data + 1, len - 1), &object, &fault))
        return 0;
    if (writable(object, 0)) {
        again(FLEET_CBOR, object);
        again(FLEET_JSON, object);
    }
    json_decref(object);
    return 0;
}
