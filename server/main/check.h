/* musterd check-config: what can be known of a configuration without serving. Threads: main. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "ops/config.h"

/* Prints each problem as one line and returns how many there are. database: also connects and
 * compares the schema. */
unsigned check_config(const struct config *config, bool database, FILE *out);
