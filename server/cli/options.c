#include "cli/options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

enum { MAX_NAME_BYTES = 32 };

static const struct option_row rows[] = {
#define OPTION_ROW(name, kind, member, value, help) {#name, kind, member, value, help},
    OPTION_TABLE(OPTION_ROW)
#undef OPTION_ROW
};

_Static_assert(OPT_COUNT <= 128, "options are bits of an option_set");

const struct option_row *option_row(enum option_id id)
{
    return &rows[id];
}

/* getopt_long says '?' of what it does not know: no option's number is a character. */
enum { ABOVE_CHARACTERS = 256 };

/* C's names have _ where the command line has -. */
static void names_fill(char names[OPT_COUNT][MAX_NAME_BYTES], struct option *table)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        snprintf(names[i], MAX_NAME_BYTES, "%s", rows[i].name);
        for (char *c = names[i]; *c; c++) {
            if (*c == '_')
                *c = '-';
        }
        table[i] =
            (struct option){names[i], rows[i].kind == OPTION_FLAG ? no_argument : required_argument,
                            NULL, ABOVE_CHARACTERS + i};
    }
    table[OPT_COUNT] = (struct option){0};
}

static bool option_take(struct options *o, int id)
{
    if (rows[id].kind == OPTION_PAIRS) {
        if (o->pair_count == OPTIONS_MAX_PAIRS || !strchr(optarg, '=')) {
            fprintf(stderr, "muster: --%s takes NAME=VALUE, at most %d times\n", rows[id].name,
                    OPTIONS_MAX_PAIRS);
            return false;
        }
        o->pairs[o->pair_count++] = optarg;
    }
    o->value[id] = optarg ? optarg : "";
    o->given |= OPTION_BIT << id;
    return true;
}

bool options_parse(int argc, char **argv, struct options *ret_options)
{
    char names[OPT_COUNT][MAX_NAME_BYTES];
    struct option table[OPT_COUNT + 1];
    struct options o = {.given = 0};
    int id;
    names_fill(names, table);
    while ((id = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (id == '?' || !option_take(&o, id - ABOVE_CHARACTERS))
            return false;
    }
    for (; optind < argc; optind++) {
        if (o.word_count == OPTIONS_MAX_WORDS) {
            fprintf(stderr, "muster: too many words\n");
            return false;
        }
        o.words[o.word_count++] = argv[optind];
    }
    *ret_options = o;
    return true;
}
