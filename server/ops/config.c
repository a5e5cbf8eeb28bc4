#include "ops/config.h"

#include <ini.h>
#include <string.h>

#include "base/text.h"
#include "ops/credential.h"

struct row {
    const char *section;
    const char *key;
    bool is_number;
    size_t offset;
    const char *text; /* default of a text; NULL: must be given */
    int64_t number;
    int64_t min;
    int64_t max;
    const char *help;
};

static const struct row rows[] = {
#define ROW_TEXT(section, key, text, help)                                                         \
    {#section, #key, false, offsetof(struct config, section##_##key), text, 0, 0, 0, help},
#define ROW_NUMBER(section, key, number, min, max, help)                                           \
    {#section, #key, true, offsetof(struct config, section##_##key), NULL, number, min, max, help},
    CONFIG_TABLE(ROW_TEXT, ROW_NUMBER)
#undef ROW_TEXT
#undef ROW_NUMBER
};

struct reading {
    struct config *config;
    bool given[ARRAY_LEN(rows)];
    char message[CONFIG_MESSAGE_BYTES];
};

static char **text_at(struct config *c, const struct row *r)
{
    return (char **)((char *)c + r->offset);
}

static int64_t *number_at(struct config *c, const struct row *r)
{
    return (int64_t *)((char *)c + r->offset);
}

void config_free(struct config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (!rows[i].is_number)
            free(*text_at(c, &rows[i]));
    }
    free(c->path);
    free(c);
}

static enum err text_replace(char **slot, const char *value)
{
    char *copy = strdup(value);
    if (!copy)
        return ERR_NO_MEMORY;
    free(*slot);
    *slot = copy;
    return ERR_OK;
}

/* inih hands over long lines in pieces: a value at its limit may have lost its end. */
static bool value_take(struct reading *r, const struct row *row, const char *value)
{
    if (!row->is_number && strlen(value) <= CONFIG_MAX_TEXT_BYTES)
        return text_replace(text_at(r->config, row), value) == ERR_OK;
    if (!row->is_number) {
        snprintf(r->message, sizeof(r->message), "[%s] %s is longer than %d bytes", row->section,
                 row->key, CONFIG_MAX_TEXT_BYTES);
        return false;
    }
    if (text_parse_int(value, row->min, row->max, number_at(r->config, row)) == ERR_OK)
        return true;
    snprintf(r->message, sizeof(r->message), "[%s] %s must be a number from %lld to %lld",
             row->section, row->key, (long long)row->min, (long long)row->max);
    return false;
}

/* inih's handler: 0 is an error. */
static int entry_take(void *user, const char *section, const char *key, const char *value)
{
    struct reading *r = user;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].section, section) != 0 || strcmp(rows[i].key, key) != 0)
            continue;
        if (r->given[i]) {
            snprintf(r->message, sizeof(r->message), "[%s] %s is given twice", section, key);
            return 0;
        }
        r->given[i] = true;
        return value_take(r, &rows[i], value);
    }
    if (r->message[0] == '\0')
        snprintf(r->message, sizeof(r->message), "there is no key [%s] %s", section, key);
    return 0;
}

static enum err defaults_set(struct config *c)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].is_number)
            *number_at(c, &rows[i]) = rows[i].number;
        else if (text_replace(text_at(c, &rows[i]), rows[i].text ? rows[i].text : ""))
            return ERR_NO_MEMORY;
    }
    return ERR_OK;
}

static enum err required_check(struct reading *r)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].is_number || rows[i].text || (*text_at(r->config, &rows[i]))[0] != '\0')
            continue;
        snprintf(r->message, sizeof(r->message), "[%s] %s must be given: %s", rows[i].section,
                 rows[i].key, rows[i].help);
        return ERR_INVALID;
    }
    return ERR_OK;
}

static enum err credentials_resolve(struct reading *r)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char **slot = rows[i].is_number ? NULL : text_at(r->config, &rows[i]);
        if (!slot || !credential_is_named(*slot))
            continue;
        char *path = NULL;
        enum err e = credential_path(*slot, &path);
        if (e) {
            snprintf(r->message, sizeof(r->message), "[%s] %s: %s names no credential of systemd",
                     rows[i].section, rows[i].key, *slot);
            return e;
        }
        free(*slot);
        *slot = path;
    }
    return ERR_OK;
}

enum err config_load(const char *path, struct config **ret_config,
                     char ret_message[CONFIG_MESSAGE_BYTES])
{
    _cleanup_(config_freep) struct config *c = calloc(1, sizeof(*c));
    struct reading r = {.config = c};
    enum err e = c ? defaults_set(c) : ERR_NO_MEMORY;
    if (!e)
        e = text_replace(&c->path, path);
    int line = e ? 0 : ini_parse(path, entry_take, &r);
    if (line < 0)
        snprintf(r.message, sizeof(r.message), "it cannot be read");
    if (line != 0)
        e = ERR_INVALID;
    if (!e)
        e = required_check(&r);
    if (!e)
        e = credentials_resolve(&r);
    if (!e)
        *ret_config = TAKE_PTR(c);
    else if (line > 0)
        snprintf(ret_message, CONFIG_MESSAGE_BYTES, "%s, line %d: %.200s", path, line,
                 r.message[0] ? r.message : "does not parse");
    else
        snprintf(ret_message, CONFIG_MESSAGE_BYTES, "%s: %.200s", path,
                 r.message[0] ? r.message : err_name(e));
    return e;
}

static bool is_live(const struct row *r)
{
    static const size_t live[] = {
#define LIVE_OFFSET(section, key) offsetof(struct config, section##_##key),
        CONFIG_LIVE(LIVE_OFFSET)
#undef LIVE_OFFSET
    };
    for (size_t i = 0; i < ARRAY_LEN(live); i++) {
        if (live[i] == r->offset)
            return true;
    }
    return false;
}

static bool same(const struct config *a, const struct config *b, const struct row *r)
{
    const char *at_a = (const char *)a + r->offset, *at_b = (const char *)b + r->offset;
    if (r->is_number)
        return *(const int64_t *)at_a == *(const int64_t *)at_b;
    return strcmp(*(char *const *)at_a, *(char *const *)at_b) == 0;
}

bool config_differ(const struct config *a, const struct config *b, size_t *index,
                   struct config_difference *ret_difference)
{
    while (*index < ARRAY_LEN(rows)) {
        const struct row *r = &rows[(*index)++];
        if (same(a, b, r))
            continue;
        ret_difference->live = is_live(r);
        snprintf(ret_difference->key, CONFIG_KEY_BYTES, "%s.%s", r->section, r->key);
        return true;
    }
    return false;
}

const char *config_optional(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

void config_describe(FILE *out)
{
    const char *section = "";
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];
        if (strcmp(section, r->section) != 0)
            fprintf(out, "[%s]\n", r->section);
        section = r->section;
        if (r->is_number)
            fprintf(out, "  %s = %lld\n", r->key, (long long)r->number);
        else
            fprintf(out, "  %s = %s\n", r->key, r->text ? r->text : "(must be given)");
        fprintf(out, "      %s\n", r->help);
    }
}
