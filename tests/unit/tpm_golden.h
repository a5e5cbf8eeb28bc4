/* Lines of golden/tpm.txt: what swtpm made with tpm2-tools, and known answers of the key
 * derivations, computed by the specification's formulas in another language. */
#pragma once

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/cleanup.h"
#include "base/text.h"
#include "pki/tpm.h"

enum { GOLDEN_LINE_BYTES = 8192, ARENA_BYTES = 8 << 20 };

/* Of the test that runs: Check gives each a process. */
static struct arena arena;

static inline void begin(void)
{
    arena_init(&arena, ARENA_BYTES);
}

static inline void end(void)
{
    arena_done(&arena);
}

/* With a zero behind it. */
static inline uint8_t *copy_of(struct bytes b)
{
    uint8_t *copy = arena_copy(&arena, b.data, b.len);
    ck_assert_ptr_nonnull(copy);
    return copy;
}

static inline struct bytes golden(const char *name)
{
    char path[4096], line[GOLDEN_LINE_BYTES];
    size_t len = strlen(name);
    struct bytes found = {0};
    snprintf(path, sizeof(path), "%s/tests/unit/golden/tpm.txt", getenv("MUSTER_SOURCE_ROOT"));
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, name, len) != 0 || line[len] != ' ')
            continue;
        line[strcspn(line, "\n")] = '\0';
        found.len = strlen(line + len + 1) / 2;
        uint8_t *data = arena_alloc(&arena, found.len);
        ck_assert_int_eq(text_parse_hex(line + len + 1, data, found.len), ERR_OK);
        found.data = data;
    }
    fclose(file);
    ck_assert_msg(found.len > 0, "no line %s", name);
    return found;
}

static inline struct tpm_public golden_public(const char *name)
{
    struct tpm_public p = {0};
    const char *why = "";
    ck_assert_msg(tpm_public_decode(golden(name), &p, &why) == ERR_OK, "%s: %s", name, why);
    return p;
}

static inline struct bytes golden_of(const char *a, const char *b)
{
    return golden(arena_printf(&arena, "%s.%s", a, b));
}
