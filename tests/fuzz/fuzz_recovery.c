/* Lines of a journal, of which the first may name the CAs of the others: whatever they are, what is
 * to be staged is a JSON object of a known kind, and a certificate in it is signed by such a CA. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "enroll/recovery_entry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { ARENA_BYTES = 4 << 20 };

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void staged_check(const char *json)
{
    json_t *entry = json_loads(json, 0, NULL);
    const char *kind = json_string_value(json_object_get(entry, "kind"));
    must(kind && json_is_integer(json_object_get(entry, "at")));
    if (strcmp(kind, "issued") == 0)
        must(json_is_string(json_object_get(json_object_get(entry, "info"), "issuer")));
    json_decref(entry);
}

static void line_run(struct bytes text, struct recovery_cas *cas)
{
    struct arena arena;
    struct recovery_entry entry = {0};
    const char *why = NULL;
    arena_init(&arena, ARENA_BYTES);
    enum err e = recovery_entry_read(text, cas, &arena, &entry, &why);
    must(e == ERR_OK || e == ERR_NO_MEMORY || (e == ERR_INVALID && why));
    if (!e && entry.kind == RECOVERY_ENTRY)
        staged_check(entry.json);
    must(e || entry.kind != RECOVERY_BEGIN || entry.replica);
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct recovery_cas cas;
    recovery_cas_init(&cas);
    while (len > 0) {
        const uint8_t *end = memchr(data, '\n', len);
        size_t n = end ? (size_t)(end - data) : len;
        line_run(bytes_of(data, n), &cas);
        data += end ? n + 1 : n;
        len -= end ? n + 1 : n;
    }
    recovery_cas_done(&cas);
    return 0;
}
