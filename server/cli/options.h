/*
 * The command line: options may stand anywhere, the rest are words. Threads: main only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/option_table.h"

enum option_kind {
    OPTION_TEXT,
    OPTION_NUMBER,
    OPTION_DURATION,
    OPTION_FLAG,
    OPTION_SWITCH, /* on or off */
    OPTION_PAIRS
};

enum option_id {
#define OPTION_ENUM(name, ...) OPT_##name,
    OPTION_TABLE(OPTION_ENUM)
#undef OPTION_ENUM
        OPT_COUNT
};

/* Options as bits. */
__extension__ typedef unsigned __int128 option_set;

#define OPTION_BIT ((option_set)1)
#define OPT(name) (OPTION_BIT << OPT_##name)

enum { OPTIONS_MAX_WORDS = 8, OPTIONS_MAX_PAIRS = 32 };

struct options {
    const char *value[OPT_COUNT]; /* as given; flags: "" */
    option_set given;
    const char *pairs[OPTIONS_MAX_PAIRS];
    size_t pair_count;
    const char *words[OPTIONS_MAX_WORDS];
    size_t word_count;
};

struct option_row {
    const char *name; /* as on the command line, with - for _ */
    enum option_kind kind;
    const char *member;
    const char *value;
    const char *help;
};

const struct option_row *option_row(enum option_id id);

/* False after it has said what is wrong. argv is borrowed. */
bool options_parse(int argc, char **argv, struct options *ret_options);
