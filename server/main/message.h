/* What musterd says where it cannot start or reload. Threads: main only. */
#pragma once

#include "base/err.h"
#include "ops/config.h"

/* Writes what failed, where (a file; "": nowhere in particular) and why; returns e. */
enum err message_at(char message[CONFIG_MESSAGE_BYTES], enum err e, const char *what,
                    const char *where);
enum err message_of(char message[CONFIG_MESSAGE_BYTES], enum err e, const char *what);
