/*
 * What another broker says of a client: the first byte chooses JSON or a form. Whatever comes out
 * lies in the arena, and an address is one.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "proto/admin/broker_said.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { ARENA_BYTES = 1 << 20, MAX_TEXT_BYTES = 16384 };

static void text_check(const char *text)
{
    if (text && (text[0] == '\0' || strlen(text) > MAX_TEXT_BYTES))
        abort();
}

static void said_check(const struct broker_said *s)
{
    uint8_t address[16];
    const char *const texts[] = {s->client_id,   s->source, s->pem,    s->fingerprint,
                                 s->common_name, s->topic,  s->action, s->retain};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        text_check(texts[i]);
    if (s->source && inet_pton(AF_INET, s->source, address) != 1 &&
        inet_pton(AF_INET6, s->source, address) != 1)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena a;
    struct broker_said said;
    if (len == 0)
        return 0;
    arena_init(&a, ARENA_BYTES);
    struct exchange x = {.arena = &a, .body = bytes_of(data + 1, len - 1)};
    enum err e = broker_said_read(&x, data[0] & 1, &said);
    if (!e)
        said_check(&said);
    else if (x.fault.code == FAULT_NONE)
        abort();
    arena_done(&a);
    return 0;
}
