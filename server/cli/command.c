#include "cli/command.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

#define GLOBAL                                                                                     \
    (OPT(json) | OPT(url) | OPT(token_file) | OPT(cacert) | OPT(timeout) | OPT(help) | OPT(version))

const struct command *command_row(size_t i)
{
    return i < command_count ? &command_table[i] : NULL;
}

option_set command_options(const struct command *c)
{
    return c->query | c->body | c->own | GLOBAL;
}

const struct command *command_find(const char *const *words, size_t count, size_t *ret_used)
{
    for (size_t i = 0; i < command_count && count > 0; i++) {
        const struct command *c = &command_table[i];
        bool verb = !c->verb || (count > 1 && strcmp(c->verb, words[1]) == 0);
        if (strcmp(c->object, words[0]) != 0 || !verb)
            continue;
        *ret_used = c->verb ? 2 : 1;
        return c;
    }
    return NULL;
}

static void name_print(const struct command *c)
{
    char name[80];
    snprintf(name, sizeof(name), "%s%s%s %s", c->object, c->verb ? " " : "", c->verb ? c->verb : "",
             c->words);
    printf("  %-34s  %s\n", name, c->help);
}

static void options_print(option_set options)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option_row *r = option_row((enum option_id)i);
        char name[64];
        if (!(options & OPTION_BIT << i))
            continue;
        snprintf(name, sizeof(name), "--%s%s%s", r->name, r->value ? " " : "",
                 r->value ? r->value : "");
        for (char *c = name; *c && *c != ' '; c++) {
            if (*c == '_')
                *c = '-';
        }
        printf("      %-30s %s\n", name, r->help);
    }
}

static bool wanted(const struct command *c, const char *object, const char *verb)
{
    if (!object)
        return true;
    if (strcmp(c->object, object) != 0)
        return false;
    return !verb || !c->verb || strcmp(c->verb, verb) == 0;
}

bool command_help(const char *object, const char *verb)
{
    int shown = 0;
    if (!object)
        printf("muster " MUSTER_VERSION
               ": the operator's command of the Muster provisioning server\n\n");
    for (size_t i = 0; i < command_count; i++) {
        const struct command *c = &command_table[i];
        if (!wanted(c, object, verb))
            continue;
        shown++;
        name_print(c);
        if (object) {
            options_print(c->query | c->body | c->own);
            printf("      e.g. %s\n", c->example);
        }
    }
    if (shown == 0)
        return false;
    printf("\nEvery command:\n");
    options_print(GLOBAL);
    printf("\nExit codes: 0 done, 1 refused by the server or lines rejected, 2 wrong usage, 3 "
           "server out of reach.\n");
    if (!object)
        printf("muster COMMAND --help tells the options of a command; docs/cli.md has it all.\n");
    return true;
}

/* Whether every option given is one of the command's, and those it needs are there. */
static bool options_fit(const struct cli *cli)
{
    const struct command *c = cli->command;
    option_set strange = cli->options.given & ~command_options(c);
    option_set missing = c->must & ~cli->options.given;
    for (int i = 0; i < OPT_COUNT && (strange | missing); i++) {
        if ((strange | missing) & OPTION_BIT << i) {
            fprintf(stderr, "muster: --%s %s; see muster %s %s --help\n",
                    option_row((enum option_id)i)->name,
                    missing & OPTION_BIT << i ? "must be given"
                                              : "is not an option of this command",
                    c->object, c->verb ? c->verb : "");
            return false;
        }
    }
    return true;
}

int command_run(struct cli *cli)
{
    const struct command *c = cli->command;
    if (!options_fit(cli))
        return EXIT_USAGE;
    return c->run ? c->run(cli) : command_call(cli, NULL);
}
