/* What the kernel says of this process, from /proc. Threads: any. */
#pragma once

#include <stdint.h>

struct process_facts {
    double started_s; /* since 1970 */
    double cpu_s;     /* user and system */
    int64_t resident_bytes;
    int64_t open_fds;
    int64_t max_fds;
};

/* What cannot be read is 0. */
struct process_facts process_look(void);
