/* muster completion: a script for the shell, made from the tables of commands and options. */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"

/* zsh takes bash's completions once it is told to. */
static const char zsh_begin[] = "#compdef muster\nautoload -U +X bashcompinit && bashcompinit\n";

/* Which words name the command, and whether the word before is an option that wants a value. */
static const char begin[] =
    "_muster() {\n"
    "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
    "    local object= verb= words= skip= word i\n"
    "    COMPREPLY=()\n"
    "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "        word=${COMP_WORDS[i]}\n"
    "        if [ -n \"$skip\" ]; then skip=; continue; fi\n"
    "        case $word in\n";
static const char middle[] = "        -*) ;;\n"
                             "        *) if [ -z \"$object\" ]; then object=$word; elif [ -z "
                             "\"$verb\" ]; then verb=$word; fi ;;\n"
                             "        esac\n"
                             "    done\n"
                             "    case $prev in\n";
static const char end[] =
    "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
    "    [ ${#COMPREPLY[@]} -gt 0 ] || [ -z \"$object\" ] || compopt -o default 2>/dev/null\n"
    "}\n"
    "complete -F _muster muster\n";

static void option_print(enum option_id id)
{
    fputs("--", stdout);
    for (const char *c = option_row(id)->name; *c; c++)
        putchar(*c == '_' ? '-' : *c);
}

/* The options of a mask, as patterns of case or as words. */
static size_t options_print(option_set options, const char *between)
{
    size_t n = 0;
    for (int i = 0; i < OPT_COUNT; i++) {
        if (!(options & OPTION_BIT << i))
            continue;
        if (n++ > 0)
            fputs(between, stdout);
        option_print((enum option_id)i);
    }
    return n;
}

/* Options with a value; files: only those that name a file. */
static option_set valued(bool files)
{
    option_set found = 0;
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option_row *r = option_row((enum option_id)i);
        bool file = r->value && strcmp(r->value, "FILE") == 0;
        if (r->value && (!files || file))
            found |= OPTION_BIT << i;
    }
    return found;
}

static void values_print(void)
{
    fputs("    ", stdout);
    options_print(valued(true), "|");
    fputs(") COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n    ", stdout);
    options_print(valued(false) & ~valued(true), "|");
    fputs(") return ;;\n    esac\n", stdout);
}

/* The objects; each once, for its commands stand together. */
static void objects_print(void)
{
    const struct command *c, *before = NULL;
    fputs("    '') words='help", stdout);
    for (size_t i = 0; (c = command_row(i)); before = c, i++) {
        if (!before || strcmp(before->object, c->object) != 0)
            printf(" %s", c->object);
    }
    fputs("' ;;\n", stdout);
}

static void verbs_print(void)
{
    const struct command *c, *before = NULL;
    for (size_t i = 0; (c = command_row(i)); before = c, i++) {
        bool another = !before || strcmp(before->object, c->object) != 0;
        if (another && before)
            fputs("' ;;\n", stdout);
        if (another)
            printf("    %s) [ -n \"$verb\" ] || words='", c->object);
        if (c->verb)
            printf("%s%s", another ? "" : " ", c->verb);
    }
    fputs("' ;;\n", stdout);
}

/* After a dash: what this command takes. A command without a verb stands behind those with one. */
static void command_options_print(void)
{
    const struct command *c;
    fputs("    case $cur in\n    -*)\n        case \"$object $verb\" in\n", stdout);
    for (size_t i = 0; (c = command_row(i)); i++) {
        printf("        '%s %s'%s) words='", c->object, c->verb ? c->verb : "", c->verb ? "" : "*");
        options_print(command_options(c), " ");
        fputs("' ;;\n", stdout);
    }
    fputs("        *) words='--help --version' ;;\n        esac ;;\n    *)\n    case $object in\n",
          stdout);
    objects_print();
    verbs_print();
    fputs("    esac ;;\n    esac\n", stdout);
}

int run_completion(struct cli *cli)
{
    bool zsh = strcmp(cli->words[0], "zsh") == 0;
    if (!zsh && strcmp(cli->words[0], "bash") != 0) {
        fprintf(stderr, "muster: there are completions for bash and zsh\n");
        return EXIT_USAGE;
    }
    if (zsh)
        fputs(zsh_begin, stdout);
    fputs(begin, stdout);
    fputs("        ", stdout);
    options_print(valued(false), "|");
    fputs(") skip=1 ;;\n", stdout);
    fputs(middle, stdout);
    values_print();
    command_options_print();
    fputs(end, stdout);
    return EXIT_OK;
}
