#include "enroll/grants.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json_out.h"
#include "base/log.h"
#include "enroll/policy_compile.h"
#include "model/policy.h"

enum { MAX_NUMBERS_BYTES = 64 * 1024, NUMBER_BYTES = 4, PART_MAX = 255 };

/* A number that no policy has: who has it may do nothing. */
static const uint32_t nobody = 0;

/* The numbers of a text, at most max; more than that: one that nobody has. */
static size_t numbers_parse(const char *text, uint32_t *ret, size_t max)
{
    size_t count = 0;
    while (text && *text) {
        char *end;
        unsigned long long n = strtoull(text, &end, 10);
        if (count == max || n > UINT32_MAX) {
            ret[0] = nobody;
            return 1;
        }
        ret[count++] = (uint32_t)n;
        text = *end == ',' ? end + 1 : end;
    }
    return count;
}

static struct grant_form *form_find(const struct grant_forms *f, uint32_t number)
{
    for (size_t i = 0; i < f->count; i++) {
        if (f->rows[i].number == number)
            return &f->rows[i];
    }
    return NULL;
}

static void log_uncompiled(const struct gate_policy *p, const char *why)
{
    struct buf b;
    log_begin(&b, LOG_ERROR, "policy.refused");
    json_int(&b, "policy", p->number);
    json_text(&b, "reason", why);
    log_end(&b, LOG_ERROR);
}

static enum err form_make(struct arena *arena, const struct gate_policy *p, struct grant_forms *f)
{
    _cleanup_(buf_donep) struct buf b = {0};
    char why[POLICY_WHY_BYTES] = "";
    buf_init(&b, POLICY_MAX_COMPILED_BYTES);
    enum err e = policy_compile(p->document, strlen(p->document), &b, why);
    if (e) {
        log_uncompiled(p, why);
        return ERR_OK;
    }
    struct grant_form *row = &f->rows[f->count];
    const void *copy = arena_copy(arena, b.data, b.len);
    if (!copy)
        return ERR_NO_MEMORY;
    *row = (struct grant_form){(uint32_t)p->number, bytes_of(copy, b.len)};
    f->count++;
    return ERR_OK;
}

/* The numbers of a page, each once if neighbours have the same, which they mostly do. */
static void numbers_add(const struct gate_page *page, struct buf *b)
{
    const char *last = NULL;
    for (size_t i = 0; i < page->count; i++) {
        const char *text = page->entries[i].policies;
        if (!text || (last && strcmp(text, last) == 0))
            continue;
        buf_printf(b, "%s%s", b->len > 0 ? "," : "", text);
        last = text;
    }
}

enum err grant_forms_load(struct db *db, struct arena *arena, const struct gate_page *page,
                          struct grant_forms *ret_forms)
{
    _cleanup_(buf_donep) struct buf numbers = {0};
    struct gate_policy *policies = NULL;
    size_t count = 0;
    *ret_forms = (struct grant_forms){0};
    buf_init(&numbers, MAX_NUMBERS_BYTES);
    numbers_add(page, &numbers);
    if (numbers.overflow)
        return ERR_NO_MEMORY;
    if (numbers.len == 0)
        return ERR_OK;
    enum err e = gate_policies_load(db, arena, buf_text(&numbers), &policies, &count);
    if (e)
        return e;
    ret_forms->rows = arena_alloc(arena, (count + 1) * sizeof(*ret_forms->rows));
    if (!ret_forms->rows)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < count && !e; i++)
        e = form_make(arena, &policies[i], ret_forms);
    return e;
}

/* Values of the thing on their way out. */
struct writer {
    struct buf *out;
    const json_t *values;
    struct bytes written[PART_MAX]; /* names */
    size_t count;
};

static void pair_add(struct writer *w, const char *name, size_t len, const char *value)
{
    size_t value_len = value ? strlen(value) : 0;
    for (size_t i = 0; i < w->count; i++) {
        if (w->written[i].len == len && memcmp(w->written[i].data, name, len) == 0)
            return;
    }
    if (value_len == 0 || value_len > PART_MAX || len > PART_MAX || w->count == PART_MAX ||
        w->out->len + 2 + len + value_len > WIRE_MAX_GRANTS_BYTES)
        return;
    w->written[w->count++] = bytes_of(name, len);
    buf_add_char(w->out, (char)len);
    buf_add(w->out, name, len);
    buf_add_char(w->out, (char)value_len);
    buf_add(w->out, value, value_len);
}

/* A variable that a policy names. */
static bool variable_take(void *arg, const char *name, size_t len)
{
    static const char type[] = "iot:Connection.Thing.ThingTypeName";
    static const char prefix[] = "iot:Connection.Thing.Attributes[";
    struct writer *w = arg;
    size_t skip = sizeof(prefix) - 1;
    if (len == sizeof(type) - 1 && memcmp(name, type, len) == 0) {
        pair_add(w, "", 0, json_string_value(json_object_get(w->values, "type")));
    } else if (len > skip + 1 && memcmp(name, prefix, skip) == 0 && name[len - 1] == ']') {
        char key[POLICY_MAX_NAME_CHARS + 1];
        memcpy(key, name + skip, len - skip - 1);
        key[len - skip - 1] = '\0';
        pair_add(w, name + skip, len - skip - 1,
                 json_string_value(json_object_get(json_object_get(w->values, "attributes"), key)));
    }
    return false;
}

static void values_add(const struct gate_entry *entry, const uint32_t *numbers, size_t count,
                       const struct grant_forms *forms, struct buf *out)
{
    json_t *values = entry->thing_values ? json_loads(entry->thing_values, 0, NULL) : NULL;
    struct writer w = {.out = out, .values = values};
    for (size_t i = 0; i < count && values; i++) {
        const struct grant_form *f = form_find(forms, numbers[i]);
        if (f)
            (void)policy_each_variable(f->form, variable_take, &w);
    }
    json_decref(values);
}

enum err grants_encode(struct arena *arena, const struct gate_entry *entry,
                       const struct grant_forms *forms, struct bytes *ret_grants)
{
    _cleanup_(buf_donep) struct buf b = {0};
    uint32_t numbers[POLICY_MAX_PER_CERTIFICATE];
    *ret_grants = bytes_of(NULL, 0);
    if (!entry->policies)
        return ERR_OK;
    size_t count = numbers_parse(entry->policies, numbers, POLICY_MAX_PER_CERTIFICATE);
    buf_init(&b, WIRE_MAX_GRANTS_BYTES);
    buf_add_char(&b, (char)count);
    for (size_t i = 0; i < count; i++) {
        const uint8_t bytes[NUMBER_BYTES] = {(uint8_t)(numbers[i] >> 24),
                                             (uint8_t)(numbers[i] >> 16),
                                             (uint8_t)(numbers[i] >> 8), (uint8_t)numbers[i]};
        buf_add(&b, bytes, sizeof(bytes));
    }
    values_add(entry, numbers, count, forms, &b);
    const void *copy = arena_copy(arena, b.data, b.len);
    *ret_grants = bytes_of(copy, b.len);
    return copy ? ERR_OK : ERR_NO_MEMORY;
}
