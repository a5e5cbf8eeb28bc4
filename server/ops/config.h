/*
 * The configuration file of musterd: INI, every key known, every value in its range. Immutable
 * once loaded; whoever loaded it frees it. Threads: any, for reading.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "ops/config_table.h"

enum { CONFIG_MESSAGE_BYTES = 512, CONFIG_MAX_TEXT_BYTES = 190 };

struct config {
#define CONFIG_TEXT(section, key, ...) char *section##_##key;
#define CONFIG_NUMBER(section, key, ...) int64_t section##_##key;
    CONFIG_TABLE(CONFIG_TEXT, CONFIG_NUMBER)
#undef CONFIG_TEXT
#undef CONFIG_NUMBER
};

/* Reads the file. ret_message tells which line is wrong and why. */
enum err config_load(const char *path, struct config **ret_config,
                     char ret_message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;
void config_free(struct config *c);
DEFINE_CLEANUP(struct config *, config_free);

/* NULL for an empty text: the default of whoever takes it. */
const char *config_optional(const char *text);

/* Prints every key with its default and meaning. */
void config_describe(FILE *out);
