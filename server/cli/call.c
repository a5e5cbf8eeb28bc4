/* From a command's row to a request, and from the answer to the terminal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/print.h"

enum { MAX_PATH_BYTES = 6000, MAX_DURATION_S = 2000000000, MAX_NUMBER = 2000000000 };

/* The parameters of a rendering: NAME=VALUE. */
static json_t *pairs_json(const struct options *o)
{
    json_t *object = json_object();
    for (size_t i = 0; i < o->pair_count; i++) {
        const char *equals = strchr(o->pairs[i], '=');
        char name[256];
        snprintf(name, sizeof(name), "%.*s", (int)(equals - o->pairs[i]), o->pairs[i]);
        json_object_set_new(object, name, json_string(equals + 1));
    }
    return object;
}

static json_t *option_json(const struct cli *cli, int id)
{
    const struct option_row *r = option_row((enum option_id)id);
    const char *text = cli->options.value[id];
    int64_t number = 0;
    switch (r->kind) {
    case OPTION_TEXT:
        return json_string(text);
    case OPTION_FLAG:
        return json_true();
    case OPTION_SWITCH:
        if (strcmp(text, "on") == 0)
            return json_true();
        return strcmp(text, "off") == 0 ? json_false() : NULL;
    case OPTION_PAIRS:
        return pairs_json(&cli->options);
    case OPTION_NUMBER:
        return text_parse_int(text, 0, MAX_NUMBER, &number) ? NULL : json_integer(number);
    case OPTION_DURATION:
        return text_parse_duration(text, MAX_DURATION_S, &number) ? NULL : json_integer(number);
    }
    return NULL;
}

/* NULL after it has said what is wrong. */
static json_t *option_value(const struct cli *cli, int id)
{
    const struct option_row *r = option_row((enum option_id)id);
    json_t *value = option_json(cli, id);
    if (!value)
        fprintf(stderr, "muster: --%s must be a %s, in UTF-8\n", r->name,
                r->kind == OPTION_DURATION ? "duration such as 90d, 12h or 30m"
                : r->kind == OPTION_SWITCH ? "switch: on or off"
                                           : "number or text");
    return value;
}

static bool is_queried(const struct cli *cli, int id)
{
    return (cli->command->query & cli->options.given & OPTION_BIT << id) != 0;
}

static bool query_check(const struct cli *cli)
{
    bool good = true;
    for (int i = 0; i < OPT_COUNT && good; i++) {
        json_t *value = is_queried(cli, i) ? option_value(cli, i) : json_null();
        good = value != NULL;
        json_decref(value);
    }
    return good;
}

/* Durations go as seconds, everything else as it was written. */
static void query_add(const struct cli *cli, struct buf *b)
{
    bool first = true;
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option_row *r = option_row((enum option_id)i);
        if (!is_queried(cli, i))
            continue;
        buf_printf(b, "%c%s=", first ? '?' : '&', r->member);
        json_t *value = r->kind == OPTION_DURATION ? option_json(cli, i) : NULL;
        if (value)
            buf_printf(b, "%lld", (long long)json_integer_value(value));
        else
            text_add_url(b, cli->options.value[i]);
        json_decref(value);
        first = false;
    }
}

void command_path(const struct cli *cli, struct buf *b)
{
    int word = 0;
    for (const char *p = cli->command->path; *p; p++) {
        if (strncmp(p, "{}", 2) == 0) {
            text_add_url(b, cli->words[word++]);
            p++;
        } else if (strncmp(p, "{product}", 9) == 0) {
            text_add_url(b, cli->options.value[OPT_product]);
            p += 8;
        } else {
            buf_add_char(b, *p);
        }
    }
    query_add(cli, b);
}

json_t *command_names(const char *list)
{
    json_t *names = json_array();
    while (list && *list) {
        size_t len = strcspn(list, ",");
        if (len > 0)
            json_array_append_new(names, json_stringn(list, len));
        list += len + strspn(list + len, ",");
    }
    return names;
}

json_t *command_body(const struct cli *cli)
{
    json_t *body = json_object();
    if (cli->command->word_member)
        json_object_set_new(body, cli->command->word_member, json_string(cli->words[0]));
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option_row *r = option_row((enum option_id)i);
        if (!(cli->command->body & cli->options.given & OPTION_BIT << i))
            continue;
        json_t *value = option_value(cli, i);
        if (!value) {
            json_decref(body);
            return NULL;
        }
        json_object_set_new(body, r->member, value);
    }
    return body;
}

void command_show(const struct cli *cli, json_t *answer)
{
    if (cli->options.given & OPT(json)) {
        print_json(answer);
        return;
    }
    switch (cli->command->show) {
    case SHOW_OBJECT:
        print_object(answer);
        return;
    case SHOW_LIST:
        print_table(answer, cli->command->columns);
        return;
    case SHOW_DEVICE:
        print_device(answer);
        return;
    case SHOW_EXPLAIN:
        print_explain(answer);
        return;
    case SHOW_TOKENS:
        print_tokens(stdout, answer, false);
        return;
    case SHOW_DOCTOR:
        print_doctor(answer);
        return;
    case SHOW_STOCK:
        print_stock(answer);
        return;
    }
}

/* Page after page into one array, at most as many rows as asked for. */
static int list_fetch(struct cli *cli, const char *path, int64_t limit, json_t *rows)
{
    char next[sizeof(((struct client_answer *)0)->next)];
    snprintf(next, sizeof(next), "%s", path);
    while (next[0] && (limit == 0 || (int64_t)json_array_size(rows) < limit)) {
        struct client_request rq = {.method = "GET", .path = next};
        struct client_answer answer = {.json = NULL};
        int rc = client_call(cli->client, &rq, &answer);
        if (rc != EXIT_OK)
            return rc;
        json_array_extend(rows, answer.json);
        json_decref(answer.json);
        snprintf(next, sizeof(next), "%s", answer.next);
    }
    while (limit > 0 && (int64_t)json_array_size(rows) > limit)
        json_array_remove(rows, json_array_size(rows) - 1);
    return EXIT_OK;
}

static int list_call(struct cli *cli, struct buf *path)
{
    int64_t limit = 0;
    const char *text = cli->options.value[OPT_limit];
    if (text && text_parse_int(text, 1, MAX_NUMBER, &limit)) {
        fprintf(stderr, "muster: --limit must be a number from 1\n");
        return EXIT_USAGE;
    }
    bool query = strchr(buf_text(path), '?') != NULL;
    buf_printf(path, "%climit=%lld", query ? '&' : '?',
               (long long)(limit > 0 && limit < 1000 ? limit : 1000));
    json_t *rows = json_array();
    int rc = list_fetch(cli, buf_text(path), limit, rows);
    if (rc == EXIT_OK)
        command_show(cli, rows);
    json_decref(rows);
    return rc;
}

static int single_call(struct cli *cli, const char *path, const json_t *body)
{
    char *text = body && json_object_size(body) > 0 ? json_dumps(body, JSON_COMPACT) : NULL;
    struct client_request rq = {.method = cli->command->method,
                                .path = path,
                                .body = text,
                                .body_len = text ? strlen(text) : 0,
                                .etag = cli->options.value[OPT_etag]};
    struct client_answer answer = {.json = NULL};
    int rc = client_call(cli->client, &rq, &answer);
    if (rc == EXIT_OK && answer.json)
        command_show(cli, answer.json);
    json_decref(answer.json);
    free(text);
    return rc;
}

int command_call(struct cli *cli, json_t *body)
{
    _cleanup_(buf_donep) struct buf path = {0};
    buf_init(&path, MAX_PATH_BYTES);
    if (!query_check(cli))
        return EXIT_USAGE;
    command_path(cli, &path);
    if (path.overflow) {
        fprintf(stderr, "muster: the arguments are too long\n");
        return EXIT_USAGE;
    }
    if (cli->command->show == SHOW_LIST || cli->command->show == SHOW_STOCK)
        return list_call(cli, &path);
    json_t *own = body ? NULL : command_body(cli);
    if (!body && !own)
        return EXIT_USAGE;
    int rc = single_call(cli, buf_text(&path), body ? body : own);
    json_decref(own);
    return rc;
}
