/* The ids that enrollments know devices by, as DPS has them. Plain data. Threads: any. */
#pragma once

#include <stdbool.h>

enum { REGISTRATION_ID_MAX_CHARS = 128 };

/* ASCII letters and digits and . _ : -, the last a letter, a digit or -. */
bool registration_id_valid(const char *id);
