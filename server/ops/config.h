/*
 * The configuration file of musterd: INI, every key known, every value in its range. Immutable
 * once loaded; whoever loaded it frees it. Threads: any, for reading.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "ops/config_table.h"

enum { CONFIG_MESSAGE_BYTES = 512, CONFIG_MAX_TEXT_BYTES = 190, CONFIG_KEY_BYTES = 64 };

struct config {
    char *path; /* the file */
#define CONFIG_TEXT(section, key, ...) char *section##_##key;
#define CONFIG_NUMBER(section, key, ...) int64_t section##_##key;
    CONFIG_TABLE(CONFIG_TEXT, CONFIG_NUMBER)
#undef CONFIG_TEXT
#undef CONFIG_NUMBER
};

/* Reads the file; a value credential:NAME becomes a path of systemd's. ret_message tells which line
 * is wrong and why. */
enum err config_load(const char *path, struct config **ret_config,
                     char ret_message[CONFIG_MESSAGE_BYTES]) MUST_CHECK;
void config_free(struct config *c);
DEFINE_CLEANUP(struct config *, config_free);

/* NULL for an empty text: the default of whoever takes it. */
const char *config_optional(const char *text);

/* What a key is to somebody who changes it. */
struct config_difference {
    char key[CONFIG_KEY_BYTES]; /* "section.key" */
    bool live;                  /* SIGHUP changes it */
};

/* The next key from *index on whose values differ; false when there is none left. Begin with 0. */
bool config_differ(const struct config *a, const struct config *b, size_t *index,
                   struct config_difference *ret_difference);

/* Prints every key with its default and meaning. */
void config_describe(FILE *out);
