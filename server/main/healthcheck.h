/*
 * `musterd healthcheck`: whether the daemon of this configuration, on this machine, can serve. For
 * containers, whose images then need no other client. Threads: main only.
 */
#pragma once

#include "ops/config.h"

/* Asks /readyz of the device listener; the exit code, and the reason on standard error. */
int healthcheck_run(const struct config *config);
