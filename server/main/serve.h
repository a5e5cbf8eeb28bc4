/* musterd serve: signals, and what systemd is told. Threads: main. */
#pragma once

#include "ops/config.h"

/* Serves until SIGTERM or SIGINT and drains; the exit code. message tells why it did not begin. */
int serve_run(const struct config *config, char message[CONFIG_MESSAGE_BYTES]);
