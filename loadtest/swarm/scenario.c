#include "scenario.h"

#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"

static const struct row {
    const char *key;
    size_t offset;
    int64_t number;
    int64_t min;
    int64_t max;
    const char *help;
} rows[] = {
#define SCENARIO_ROW(key, number, min, max, help)                                                  \
    {#key, offsetof(struct scenario, key), number, min, max, help},
    SCENARIO_TABLE(SCENARIO_ROW)
#undef SCENARIO_ROW
};

struct reading {
    struct scenario *scenario;
    char *message;
};

static enum err text_set(char *slot, size_t len, const char *value, char *message)
{
    if (strlen(value) < len && text_is_printable_utf8(value)) {
        snprintf(slot, len, "%s", value);
        return ERR_OK;
    }
    snprintf(message, SCENARIO_MESSAGE_BYTES, "a text that is too long");
    return ERR_INVALID;
}

#define DOORS "est, claim-https, claim-mqtt, jitp, jitp-https, jitr, dps-sas, dps-x509 or scep"

static const char *const door_names[] = {"est",  "claim-https", "claim-mqtt", "jitp", "jitp-https",
                                         "jitr", "dps-sas",     "dps-x509",   "scep"};

bool scenario_door_is_jit(enum scenario_door door)
{
    return door == DOOR_JITP || door == DOOR_JITP_HTTPS || door == DOOR_JITR;
}

bool scenario_door_is_dps(enum scenario_door door)
{
    return door == DOOR_DPS_SAS || door == DOOR_DPS_X509;
}

bool scenario_door_names_serial(enum scenario_door door)
{
    return door == DOOR_EST || door == DOOR_SCEP || scenario_door_is_dps(door);
}

bool scenario_door_has_tokens(enum scenario_door door)
{
    return door == DOOR_EST || door == DOOR_SCEP;
}

bool scenario_door_is_mqtt(enum scenario_door door)
{
    return door == DOOR_CLAIM_MQTT || door == DOOR_JITP || door == DOOR_JITR;
}

static enum err door_set(struct scenario *s, const char *value, char *message)
{
    for (size_t i = 0; i < ARRAY_LEN(door_names); i++) {
        if (strcmp(value, door_names[i]) == 0) {
            s->door = (enum scenario_door)i;
            return ERR_OK;
        }
    }
    snprintf(message, SCENARIO_MESSAGE_BYTES, "door must be " DOORS);
    return ERR_INVALID;
}

enum err scenario_set(struct scenario *s, const char *key, const char *value,
                      char message[SCENARIO_MESSAGE_BYTES])
{
    if (strcmp(key, "about") == 0)
        return text_set(s->about, sizeof(s->about), value, message);
    if (strcmp(key, "template") == 0)
        return text_set(s->template_name, sizeof(s->template_name), value, message);
    if (strcmp(key, "id_scope") == 0)
        return text_set(s->id_scope, sizeof(s->id_scope), value, message);
    if (strcmp(key, "group_key") == 0)
        return text_set(s->group_key, sizeof(s->group_key), value, message);
    if (strcmp(key, "door") == 0)
        return door_set(s, value, message);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];
        if (strcmp(r->key, key) != 0)
            continue;
        if (text_parse_int(value, r->min, r->max, (int64_t *)((char *)s + r->offset)) == ERR_OK)
            return ERR_OK;
        snprintf(message, SCENARIO_MESSAGE_BYTES, "%s must be a number from %lld to %lld", key,
                 (long long)r->min, (long long)r->max);
        return ERR_INVALID;
    }
    snprintf(message, SCENARIO_MESSAGE_BYTES, "there is no key %.64s", key);
    return ERR_INVALID;
}

static int entry_take(void *user, const char *section, const char *key, const char *value)
{
    struct reading *r = user;
    if (section[0] == '\0')
        return scenario_set(r->scenario, key, value, r->message) == ERR_OK;
    snprintf(r->message, SCENARIO_MESSAGE_BYTES, "a scenario has no sections");
    return 0;
}

/* The file's name without folder and ending. */
static void name_set(struct scenario *s, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    snprintf(s->name, sizeof(s->name), "%.*s", (int)strcspn(base, "."), base);
}

enum err scenario_load(const char *path, struct scenario *ret_scenario,
                       char message[SCENARIO_MESSAGE_BYTES])
{
    struct scenario s = {.about = ""};
    struct reading r = {.scenario = &s, .message = message};
    message[0] = '\0';
    name_set(&s, path);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        *(int64_t *)((char *)&s + rows[i].offset) = rows[i].number;
    int line = ini_parse(path, entry_take, &r);
    if (line == 0) {
        *ret_scenario = s;
        return ERR_OK;
    }
    char why[SCENARIO_MESSAGE_BYTES];
    snprintf(why, sizeof(why), "%s", message[0] ? message : "it does not parse");
    if (line < 0)
        snprintf(message, SCENARIO_MESSAGE_BYTES, "%.120s cannot be read", path);
    else
        snprintf(message, SCENARIO_MESSAGE_BYTES, "%.80s, line %d: %.120s", path, line, why);
    return ERR_INVALID;
}

void scenario_describe(void)
{
    printf("  %-20s %s\n", "about", "one sentence for the report");
    printf("  %-20s %s\n", "template", "the template, EST label (default: MUSTER_TEMPLATE)");
    printf("  %-20s %s\n", "door", DOORS ": how devices come in (est)");
    printf("  %-20s %s\n", "id_scope", "DPS: the ID scope (default: MUSTER_DPS_ID_SCOPE)");
    printf("  %-20s %s\n", "group_key",
           "dps-sas: file with a group's key in base64 (default: a group is made)");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        printf("  %-20s %s (%lld)\n", rows[i].key, rows[i].help, (long long)rows[i].number);
}
