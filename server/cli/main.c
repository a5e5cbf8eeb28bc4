/* muster: the operator's command. It speaks only the admin API, so it works from any machine. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/command.h"

enum { MAX_TOKEN_BYTES = 512, DEFAULT_TIMEOUT_S = 120, MAX_TIMEOUT_S = 86400 };

static int usage_error(const char *what)
{
    fprintf(stderr, "muster: %s; see muster --help\n", what);
    return EXIT_USAGE;
}

static const char *option_or_env(const struct options *o, enum option_id id, const char *variable)
{
    return o->value[id] ? o->value[id] : getenv(variable);
}

/* Never from the command line, which every process of the machine can read. */
static int token_load(const struct options *o, struct buf *b, const char **ret_token)
{
    const char *path = o->value[OPT_token_file];
    buf_init(b, MAX_TOKEN_BYTES);
    if (!path) {
        *ret_token = getenv("MUSTER_ADMIN_TOKEN");
        return EXIT_OK;
    }
    if (file_load(path, b) || b->len == 0) {
        fprintf(stderr, "muster: %s: no token can be read from it\n", path);
        return EXIT_USAGE;
    }
    b->data[strcspn(buf_text(b), "\r\n")] = '\0';
    *ret_token = buf_text(b);
    return EXIT_OK;
}

static int run(struct cli *cli)
{
    _cleanup_(buf_donep) struct buf token_file = {0};
    const struct options *o = &cli->options;
    struct client_settings settings = {
        .url = option_or_env(o, OPT_url, "MUSTER_ADMIN_URL"),
        .cafile = option_or_env(o, OPT_cacert, "MUSTER_CACERT"),
    };
    int64_t timeout_s = DEFAULT_TIMEOUT_S;
    if (o->value[OPT_timeout] &&
        text_parse_int(o->value[OPT_timeout], 1, MAX_TIMEOUT_S, &timeout_s))
        return usage_error("--timeout must be a number of seconds");
    settings.timeout_s = (long)timeout_s;
    bool local = !cli->command->method || o->given & OPT(export);
    int rc = local ? EXIT_OK : token_load(o, &token_file, &settings.token);
    if (rc == EXIT_OK && !local)
        rc = client_new(&settings, &cli->client);
    if (rc != EXIT_OK)
        return rc;
    rc = command_run(cli);
    client_free(cli->client);
    return rc;
}

static int help(const struct options *o)
{
    size_t skip = o->word_count > 0 && strcmp(o->words[0], "help") == 0;
    const char *object = o->word_count > skip ? o->words[skip] : NULL;
    const char *verb = o->word_count > skip + 1 ? o->words[skip + 1] : NULL;
    return command_help(object, verb) ? EXIT_OK : usage_error("there is no such command");
}

/* Words in brackets may be left out. */
static bool words_fit(const struct command *c, size_t count)
{
    size_t fewest = (size_t)c->word_count, most = fewest;
    for (const char *p = c->words; *p; p++)
        most += *p == '[';
    return count >= fewest && count <= most;
}

int main(int argc, char **argv)
{
    struct cli cli = {.command = NULL};
    size_t used = 0;
    if (!options_parse(argc, argv, &cli.options))
        return EXIT_USAGE;
    const struct options *o = &cli.options;
    if (o->given & OPT(version)) {
        printf("muster %s\n", MUSTER_VERSION);
        return EXIT_OK;
    }
    if (o->given & OPT(help) || (o->word_count > 0 && strcmp(o->words[0], "help") == 0))
        return help(o);
    cli.command = command_find(o->words, o->word_count, &used);
    if (!cli.command)
        return usage_error("there is no such command");
    cli.word_count = o->word_count - used;
    if (!words_fit(cli.command, cli.word_count)) {
        fprintf(stderr, "muster: expected: muster %s %s %s\n", cli.command->object,
                cli.command->verb ? cli.command->verb : "", cli.command->words);
        return EXIT_USAGE;
    }
    memcpy(cli.words, o->words + used, cli.word_count * sizeof(cli.words[0]));
    return run(&cli);
}
