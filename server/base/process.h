/* What the kernel says of this process, from /proc. Threads: any. */
#pragma once

#include <stdint.h>

struct process_facts {
    double cpu_s; /* user and system */
    int64_t resident_bytes;
    int64_t open_fds;
    int64_t max_fds;
};

/* What cannot be read is 0. */
struct process_facts process_look(void);

/* When the process started, in seconds since 1970. Reckoned back from the present time, so ask once
 * and keep it: a second answer may differ by what the clock was corrected. */
double process_started_s(void);
